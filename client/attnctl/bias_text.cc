#include "client/attnctl/bias_text.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "bias/number_text.h"
#include "bias/picture.h"
#include "bias/picture_scale.h"
#include "client/attnctl/bias_window.h"

namespace attnd::ctl {
namespace {

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
    absl::StrAppend(&values, separator, bias::ShortestText(reply.values[i]));
    absl::StrAppend(&heads, separator, reply.heads[i]);
  }
  return absl::StrCat(values, reply.heads.size() == 1 ? " in head " : " in heads ", heads);
}

// " (offsets 2 to 3)": the unmasked offsets of the cell's bucket, not limited to the window. Empty if the server does
// not send them.
std::string OfBucket(const BiasRequest& request, const BiasReply& reply) {
  if (reply.bucket_ranges.empty()) return "";
  const bias::OffsetRange offsets = bias::BucketKeys(PictureOf(request, reply)).begin()->second.offsets;
  return absl::StrCat(offsets.min == offsets.max ? " (offset " : " (offsets ", bias::InWords(offsets), ")");
}

}  // namespace

std::string Picture(const BiasRequest& request, const BiasReply& reply, bool values, const Flags& flags) {
  const bias::PictureWindow window = PictureOf(request, reply);
  const bool svg = flags.format.value() == Format::kSvg;
  if (values || reply.buckets.empty()) {
    return svg ? bias::HeatMapSvg(window) : bias::HeatMapText(window, ForTerminal(flags));
  }
  return svg ? bias::BucketGridSvg(window) : bias::BucketGridText(window, ForTerminal(flags));
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
  return absl::StrCat(start, ", which ", table, " puts into bucket ", reply.buckets[0], OfBucket(request, reply),
                      ", so u", reply.buckets[0], added);
}

}  // namespace attnd::ctl
