#include "memory/pace.h"

#include "gtest/gtest.h"

namespace attnd::memory {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

class PaceTest : public testing::Test {
 protected:
  milliseconds Until(std::int64_t missing) { return pace_.Until(missing, given_back_, now_); }
  void Pass(milliseconds time, std::int64_t given_back) {
    now_ += time;
    given_back_ += given_back;
  }

  Pace pace_;
  Pace::Clock::time_point now_{hours(100)};
  std::int64_t given_back_ = 12345;
};

TEST_F(PaceTest, KnowsNothingAtFirst) {
  EXPECT_EQ(Until(1), Pace::kUnknown);
  Pass(milliseconds(50), 1000);
  EXPECT_EQ(Until(1), Pace::kUnknown) << "too short to measure";
}

TEST_F(PaceTest, GoesByHowFastBytesCameBack) {
  Until(1);
  Pass(milliseconds(200), 2000);  // 10 a millisecond
  EXPECT_EQ(Until(3000), milliseconds(300));
  EXPECT_EQ(Until(1), Pace::kShortest);
  EXPECT_EQ(Until(1000000), Pace::kLongest);
  Pass(milliseconds(100), 10000);
  EXPECT_EQ(Until(3000), milliseconds(30)) << "ten times as fast now";
}

TEST_F(PaceTest, WaitsLongWhereNothingComesBack) {
  Until(1);
  Pass(milliseconds(500), 0);
  EXPECT_EQ(Until(1), Pace::kLongest);
}

TEST_F(PaceTest, ForgetsWhatWasLongAgo) {
  Until(1);
  Pass(milliseconds(500), 0);
  Until(1);
  Pass(hours(1), 100);
  EXPECT_EQ(Until(1), Pace::kUnknown);
}

}  // namespace
}  // namespace attnd::memory
