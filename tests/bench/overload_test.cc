// A seeded simulation of the intake, the ledger and the turns together, up to the stop (bench/overload_model.h): what
// must always hold does, whatever the peers do.
#include <cstdint>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "overload_model.h"

namespace attnd::bench {
namespace {

using testing::Gt;
using testing::Lt;

class OverloadTest : public testing::Test {
 protected:
  OverloadResult Run(OverloadOptions options) {
    options.seed = std::random_device()();
    SCOPED_TRACE(testing::Message() << "seed " << options.seed);
    const OverloadResult result = RunOverload(options);
    EXPECT_EQ(result.wrong, "") << "seed " << options.seed;
    EXPECT_GT(result.calls, 1000);
    return result;
  }
};

TEST_F(OverloadTest, AMillionEventsAtTwiceTheLoad) {
  const OverloadResult result = Run({.cores = 4, .honest = 20, .greedy = 2, .load = 2});
  EXPECT_GT(result.goodput, 0.75);
  EXPECT_GT(result.refused_at_headers + result.refused_later, 0);
  EXPECT_GT(result.cancelled, 0);
  EXPECT_GT(result.stalled, 0);
  EXPECT_GT(result.least_answered, 0.5) << "an honest peer starves";
  EXPECT_LT(result.stop_seconds, 4) << "a deadline, and what a result may wait to be read";
}

TEST_F(OverloadTest, LittleMemory) {
  const OverloadResult result = Run({.honest = 20, .load = 3, .total_bytes = 200 << 20, .events = 300'000});
  EXPECT_GT(result.refused_later, 0);
  EXPECT_GT(result.answered, 0);
}

TEST_F(OverloadTest, WithoutOverloadNobodyIsRefusedForIt) {
  const OverloadResult result =
      Run({.honest = 20, .greedy = 0, .slow = 0, .silent = 0, .deaf = 0, .dying = 0, .load = 0.5, .events = 300'000});
  EXPECT_EQ(result.refused_at_headers + result.refused_later, 0);
  EXPECT_EQ(result.answered, result.calls);
}

// The negative control: where receiving is what takes the time, and all is received side by side.
TEST_F(OverloadTest, ReceivedSideBySideHardlyAnythingIsInTime) {
  OverloadOptions options{.honest = 300, .load = 2, .message_seconds = 0.005, .events = 300'000};
  const double few = Run(options).goodput;
  options.places = 100'000;
  const double all = Run(options).goodput;
  EXPECT_THAT(few, Gt(0.7));
  EXPECT_THAT(all, Lt(few / 2));
}

}  // namespace
}  // namespace attnd::bench
