#include "client/attnctl/bias_text.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>

#include "absl/strings/str_cat.h"
#include "bias/picture.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

// The fewest digits that give the same float again.
std::string Shortest(float value) {
  char digits[32];
  return std::string(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
}

// [[...], ...] by query and key; `cell` gives an unmasked cell's text.
std::string Rows(const bias::PictureWindow& window, const std::function<std::string(std::size_t)>& cell) {
  std::string rows = "[";
  for (std::int64_t q = 0; q < window.queries; ++q) {
    absl::StrAppend(&rows, q == 0 ? "\n  [" : ",\n  [");
    for (std::int64_t k = 0; k < window.keys; ++k) {
      const std::size_t at = window.Index(q, k);
      absl::StrAppend(&rows, k == 0 ? "" : ",", window.Masked(at) ? "null" : cell(at));
    }
    absl::StrAppend(&rows, "]");
  }
  return rows + "]";
}

std::string Json(const bias::PictureWindow& window, const BiasRequest& request, const BiasReply& reply) {
  const auto offset = [&](std::size_t at) { return absl::StrCat(window.offsets[at]); };
  const auto bucket = [&](std::size_t at) {
    return window.buckets.empty() ? "null" : absl::StrCat(window.buckets[at]);
  };
  const auto value = [&](std::size_t at) { return Shortest(window.values[at]); };
  return absl::StrCat("{\"model\":", nlohmann::json(request.model).dump(), ",\"version\":", reply.version,
                      ",\"table\":", nlohmann::json(reply.table).dump(), ",\"mask\":\"",
                      reply.mask == Mask::kCausal ? "causal" : "none", "\",\"head\":", window.head,
                      ",\"query_start\":", window.query_start, ",\"key_start\":", window.key_start,
                      ",\n\"offsets\":", Rows(window, offset), ",\n\"buckets\":", Rows(window, bucket),
                      ",\n\"values\":", Rows(window, value), "}\n");
}

bias::TextOptions ForTerminal(const Flags& flags) {
  bias::TextOptions options;
  const std::string& out = flags.out.value();
  if (!out.empty() && out != "-") return options;
  if (isatty(STDOUT_FILENO) != 1) return options;
  const char* no_colour = std::getenv("NO_COLOR");  // https://no-color.org
  const char* terminal = std::getenv("TERM");
  options.colour =
      (no_colour == nullptr || *no_colour == '\0') && (terminal == nullptr || std::string(terminal) != "dumb");
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) options.columns = size.ws_col;
  return options;
}

// "0.25 in head 3", "0.25, 1 and -3 in heads 0, 1 and 2".
std::string ValuesByHead(const BiasReply& reply) {
  std::string values, heads;
  for (std::size_t i = 0; i < reply.heads.size(); ++i) {
    const char* separator = i == 0 ? "" : i + 1 == reply.heads.size() ? " and " : ", ";
    absl::StrAppend(&values, separator, Shortest(reply.values[i]));
    absl::StrAppend(&heads, separator, reply.heads[i]);
  }
  return absl::StrCat(values, reply.heads.size() == 1 ? " in head " : " in heads ", heads);
}

}  // namespace

std::string Picture(const BiasRequest& request, const BiasReply& reply, const Flags& flags) {
  bias::PictureWindow window;
  const bool values = flags.head.value().has_value() || reply.buckets.empty();
  window.title = absl::StrCat(request.model, ", ", reply.table);
  if (values) absl::StrAppend(&window.title, ", head ", reply.heads[0]);
  window.query_start = request.query_start;
  window.key_start = request.key_start;
  window.queries = request.query_count;
  window.keys = request.key_count;
  window.causal = reply.mask == Mask::kCausal;
  window.offsets = reply.offsets;
  window.buckets = reply.buckets;
  window.values = reply.values;
  window.head = reply.heads[0];
  switch (flags.format.value()) {
    case Format::kJson:
      return Json(window, request, reply);
    case Format::kSvg:
      return values ? bias::HeatMapSvg(window) : bias::BucketGridSvg(window);
    case Format::kText:
      break;
  }
  return values ? bias::HeatMapText(window, ForTerminal(flags)) : bias::BucketGridText(window, ForTerminal(flags));
}

std::string Sentence(const BiasRequest& request, const BiasReply& reply) {
  const std::string start =
      absl::StrCat("query ", request.query_start, " and key ", request.key_start, " are at offset ",
                   request.query_start, " - ", request.key_start, " = ", reply.offsets[0]);
  const std::string table = absl::StrCat("table ", reply.table, " of ", request.model);
  if (reply.mask == Mask::kCausal && reply.offsets[0] < 0) {
    return absl::StrCat(start, ", so the key comes after the query, and the causal mask of ", table,
                        " hides it: it gets no bucket, no bias and no weight.\n");
  }
  const std::string added = absl::StrCat(" is added to q\u00b7k: ", ValuesByHead(reply), ".\n");
  if (reply.buckets.empty()) return absl::StrCat(start, ", and the bias that ", table, " gives this offset", added);
  return absl::StrCat(start, ", which ", table, " puts into bucket ", reply.buckets[0], ", so u", reply.buckets[0],
                      added);
}

}  // namespace attnd::ctl
