#include "client/attnctl/quantities.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace attnd::ctl {
namespace {

TEST(Quantities, BytesAreRoundedDown) {
  const struct {
    std::int64_t bytes;
    const char* text;
  } kCases[] = {{0, "0 B"},
                {1023, "1023 B"},
                {1024, "1.0 KiB"},
                {(1 << 20) - 1, "1023.9 KiB"},
                {102 << 20, "102.0 MiB"},
                {107000704, "102.0 MiB"},
                {std::int64_t{5} << 29, "2.5 GiB"},
                {std::int64_t{3} << 40, "3.0 TiB"},
                {std::numeric_limits<std::int64_t>::max(), "8388607.9 TiB"}};
  for (const auto& c : kCases) EXPECT_EQ(BytesText(c.bytes), c.text);
}

TEST(Quantities, DurationsHaveTwoUnits) {
  const struct {
    absl::Duration duration;
    const char* text;
  } kCases[] = {
      {absl::ZeroDuration(), "0.0s"}, {absl::Milliseconds(3499), "3.4s"}, {absl::Milliseconds(59999), "59.9s"},
      {absl::Seconds(60), "1m0s"},    {absl::Seconds(3599), "59m59s"},    {absl::Seconds(3600 + 119), "1h1m"},
      {absl::Hours(24), "1d0h"},      {absl::Hours(24 * 9 + 23), "9d23h"}};
  for (const auto& c : kCases) EXPECT_EQ(ShortDuration(c.duration), c.text);
}

}  // namespace
}  // namespace attnd::ctl
