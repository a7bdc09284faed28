// Pictures of windows that a server of anybody's may have sent: any title, buckets, ranges and values, in sizes that
// match. The input: sizes, starts, what is set, the title, and numbers for the rest.
#include "bias/picture.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "input.h"
#include "xml_check.h"

namespace attnd::bias {
namespace {

using fuzz::Check;

// Far more than a picture of these sizes takes.
constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

void CheckText(const std::string& text) {
  Check(!text.empty() && text.back() == '\n', "text is whole lines");
  Check(text.size() <= kMaxBytes, "text is of bounded size");
}

void CheckSvg(const std::string& svg) {
  fuzz::CheckXml(svg);
  Check(svg.size() <= kMaxBytes, "an SVG is of bounded size");
}

void Run(fuzz::Input input) {
  PictureWindow window;
  window.queries = 1 + input.Take<std::uint8_t>() % 40;
  window.keys = 1 + input.Take<std::uint8_t>() % 40;
  window.query_start = input.Take<std::uint32_t>() & 0x7fffffff;
  window.key_start = input.Take<std::uint32_t>() & 0x7fffffff;
  const auto what = input.Take<std::uint8_t>();
  window.causal = (what & 1) != 0;
  const bool colour = (what & 2) != 0;
  const auto heads = static_cast<std::size_t>(1 + (what >> 2) % 3);
  const int columns = input.Take<std::uint8_t>();
  window.title = std::string(input.Bytes(input.Take<std::uint8_t>()));
  const int ranges = input.Take<std::uint8_t>() % 8;
  for (int i = 0; i < ranges; ++i) {
    OffsetRange& range = window.bucket_ranges[input.Take<std::int8_t>()];
    const auto ends = input.Take<std::uint8_t>();
    if ((ends & 1) != 0) range.min = input.Take<std::int64_t>();
    if ((ends & 2) != 0) range.max = input.Take<std::int64_t>();
  }
  const auto cells = static_cast<std::size_t>(window.queries * window.keys);
  std::vector<std::int32_t> buckets(cells);
  const bool small = (what & 32) != 0;
  for (std::int32_t& bucket : buckets) bucket = small ? input.Take<std::int8_t>() : input.Take<std::int32_t>();
  if ((what & 64) == 0) window.buckets = buckets;
  std::vector<float> values(cells * heads);
  for (float& value : values) value = input.Take<float>();
  for (std::size_t head = 0; head < heads; ++head) {
    window.heads.push_back({static_cast<std::int64_t>(head), absl::MakeConstSpan(values).subspan(head * cells, cells)});
  }
  const TextOptions options{colour, columns};
  if (!window.buckets.empty()) {
    CheckSvg(BucketGridSvg(window));
    CheckText(BucketGridText(window, options));
  }
  CheckSvg(HeatMapSvg(window));
  CheckText(HeatMapText(window, options));
}

}  // namespace
}  // namespace attnd::bias

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attnd::bias::Run(attnd::fuzz::Input(data, size));
  return 0;
}
