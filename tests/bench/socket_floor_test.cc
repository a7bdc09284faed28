#include "socket_floor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <memory>

namespace attnd::bench {
namespace {

using ::testing::Gt;
using ::testing::HasSubstr;

SocketEchoOptions Options(SocketKind kind, std::int64_t bytes) {
  SocketEchoOptions options;
  options.kind = kind;
  options.tensor_bytes = bytes;
  return options;
}

class SocketEchoTest : public testing::TestWithParam<SocketKind> {};

// 3 MiB is more than a socket holds, so sending and receiving must take turns.
TEST_P(SocketEchoTest, EchoesTensorsOfEverySizeAgainAndAgain) {
  for (std::int64_t bytes : {1, 2, 4095, 65536, 3 << 20}) {
    absl::StatusOr<std::unique_ptr<SocketEcho>> echo = SocketEcho::Create(Options(GetParam(), bytes));
    ASSERT_TRUE(echo.ok()) << echo.status();
    EXPECT_EQ((*echo)->bytes_per_exchange(), 4 * bytes);
    for (int i = 0; i < 5; ++i) {
      absl::StatusOr<absl::Duration> time = (*echo)->Exchange();
      ASSERT_TRUE(time.ok()) << time.status();
      EXPECT_GT(*time, absl::ZeroDuration());
    }
  }
}

TEST_P(SocketEchoTest, RunsPinned) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  const int cpu = sched_getcpu();
  SocketEchoOptions options = Options(GetParam(), 1000);
  options.client_cpu = cpu;
  options.server_cpu = cpu;
  absl::StatusOr<std::unique_ptr<SocketEcho>> echo = SocketEcho::Create(options);
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_TRUE((*echo)->Exchange().ok());
  EXPECT_EQ(sched_getcpu(), cpu);
  EXPECT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST_P(SocketEchoTest, RefusesBadOptions) {
  SocketEchoOptions no_bytes = Options(GetParam(), 0);
  EXPECT_THAT(SocketEcho::Create(no_bytes).status().message(), HasSubstr("tensor_bytes: expected >= 1, got 0"));

  SocketEchoOptions no_tensors = Options(GetParam(), 1);
  no_tensors.request_tensors = 0;
  EXPECT_THAT(SocketEcho::Create(no_tensors).status().message(), HasSubstr("request_tensors: expected >= 1, got 0"));

  SocketEchoOptions no_such_cpu = Options(GetParam(), 1);
  no_such_cpu.server_cpu = CPU_SETSIZE - 1;
  const absl::Status pinned = SocketEcho::Create(no_such_cpu).status();
  EXPECT_EQ(pinned.code(), absl::StatusCode::kInvalidArgument) << pinned;
}

INSTANTIATE_TEST_SUITE_P(Kinds, SocketEchoTest, testing::Values(SocketKind::kTcp, SocketKind::kUnix),
                         [](const auto& info) { return info.param == SocketKind::kTcp ? "Tcp" : "Unix"; });

TEST_P(SocketEchoTest, LiesOnThePagesThatWereAskedFor) {
  SocketEchoOptions options = Options(GetParam(), 4 << 20);
  options.pages = PageKind::kSmall;
  absl::StatusOr<std::unique_ptr<SocketEcho>> echo = SocketEcho::Create(options);
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_TRUE((*echo)->Exchange().ok());
  EXPECT_EQ((*echo)->RequestHugeFraction(), 0.0);
}

TEST(MeasureCopyTest, MeasuresSomething) {
  for (const PageKind pages : {PageKind::kHuge, PageKind::kSmall}) {
    EXPECT_THAT(MeasureCopyBytesPerSecond(1 << 20, 3, pages), Gt(0.0));
  }
}

}  // namespace
}  // namespace attnd::bench
