#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <limits>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bias/picture.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/parse.h"
#include "client/attnctl/progress.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

absl::StatusOr<BiasRequest> RequestFromFlags(const std::string& model) {
  BiasRequest request;
  request.model = model;
  request.version = absl::GetFlag(FLAGS_version);
  request.table = absl::GetFlag(FLAGS_table);
  request.query_start = absl::GetFlag(FLAGS_query_start);
  request.query_count = absl::GetFlag(FLAGS_queries);
  request.key_start = absl::GetFlag(FLAGS_key_start);
  request.key_count = absl::GetFlag(FLAGS_keys) == 0 ? request.query_count : absl::GetFlag(FLAGS_keys);
  request.heads = {absl::GetFlag(FLAGS_head).value_or(0)};
  const absl::StatusOr<Mask> mask = ParseMask(absl::GetFlag(FLAGS_mask));
  if (!mask.ok()) return mask.status();
  request.mask = *mask;
  return request;
}

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
                      ",\"table\":", nlohmann::json(reply.table).dump(), ",\"mask\":\"", NameOf(reply.mask),
                      "\",\"head\":", window.head, ",\"query_start\":", window.query_start,
                      ",\"key_start\":", window.key_start, ",\n\"offsets\":", Rows(window, offset),
                      ",\n\"buckets\":", Rows(window, bucket), ",\n\"values\":", Rows(window, value), "}\n");
}

bias::TextOptions ForTerminal() {
  bias::TextOptions options;
  const std::string out = absl::GetFlag(FLAGS_out);
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

absl::StatusOr<std::string> Draw(const BiasRequest& request, const BiasReply& reply) {
  bias::PictureWindow window;
  const bool values = absl::GetFlag(FLAGS_head).has_value() || reply.buckets.empty();
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
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format == "json") return Json(window, request, reply);
  if (format == "svg") return values ? bias::HeatMapSvg(window) : bias::BucketGridSvg(window);
  return values ? bias::HeatMapText(window, ForTerminal()) : bias::BucketGridText(window, ForTerminal());
}

// What was asked for, so that nothing below here reads past a reply's end.
absl::Status CheckReply(const BiasRequest& request, const BiasReply& reply) {
  const auto queries = static_cast<std::size_t>(request.query_count),
             keys = static_cast<std::size_t>(request.key_count);
  const bool sizes_match = reply.offsets.size() / keys == queries && reply.offsets.size() % keys == 0 &&
                           (reply.buckets.empty() || reply.buckets.size() == reply.offsets.size()) &&
                           !reply.heads.empty() && reply.values.size() / reply.heads.size() == reply.offsets.size() &&
                           reply.values.size() % reply.heads.size() == 0;
  return sizes_match ? absl::OkStatus() : absl::InternalError("the server's reply does not have the window's size");
}

absl::StatusOr<BiasReply> Ask(const BiasRequest& request) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  Progress progress("asking " + ServerAddress());
  absl::StatusOr<BiasReply> reply = client->GetBias(request, Options());
  if (!reply.ok()) return reply.status();
  if (absl::Status s = CheckReply(request, *reply); !s.ok()) return s;
  return reply;
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

absl::Status Explain(BiasRequest request, const std::string& pair) {
  const std::vector<std::string> words = absl::StrSplit(pair, ',');
  if (words.size() != 2 || !absl::SimpleAtoi(words[0], &request.query_start) ||
      !absl::SimpleAtoi(words[1], &request.key_start)) {
    return UsageError(absl::StrCat("--explain: expected the positions of a query and a key, as 5,2, got ", pair));
  }
  request.query_count = request.key_count = 1;
  if (!absl::GetFlag(FLAGS_head).has_value()) request.heads.clear();
  const absl::StatusOr<BiasReply> reply = Ask(request);
  if (!reply.ok()) return reply.status();
  return WriteOutput(absl::GetFlag(FLAGS_out), Sentence(request, *reply));
}

}  // namespace

absl::Status Bias(const std::vector<std::string>& arguments) {
  const absl::StatusOr<BiasRequest> request = RequestFromFlags(arguments[0]);
  if (!request.ok()) return request.status();
  if (const std::string pair = absl::GetFlag(FLAGS_explain); !pair.empty()) return Explain(*request, pair);
  const std::string format = absl::GetFlag(FLAGS_format);
  if (format != "text" && format != "svg" && format != "json") {
    return UsageError(absl::StrCat("--format: expected text, svg or json, got ", format));
  }
  if (request->query_count < 1) return UsageError("--queries: expected at least 1");
  if (request->key_count < 1) return UsageError("--keys: expected at least 1");
  const absl::StatusOr<BiasReply> reply = Ask(*request);
  if (!reply.ok()) return reply.status();
  const absl::StatusOr<std::string> picture = Draw(*request, *reply);
  if (!picture.ok()) return picture.status();
  return WriteOutput(absl::GetFlag(FLAGS_out), *picture);
}

}  // namespace attnd::ctl
