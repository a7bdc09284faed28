#include "server/serving/threads.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "schedule/scheduler.h"
#include "server/models/service.h"

namespace attnd::server {
namespace {

TEST(ThreadsTest, AsManyAsTheOptionsNeed) {
  Options options;
  options.threads = 7;
  const int few = ThreadsOf(options);
  EXPECT_GT(few, 7 + 4);
  options.threads = 20;
  options.listen.emplace_back("unix:/tmp/a.sock");
  EXPECT_EQ(ThreadsOf(options), few + 13 + 2);
}

// All that the server and gRPC start, at most: with fewer, a call that comes later finds no thread.
TEST(ThreadsTest, CoverEveryPart) {
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
  const int of_grpc = std::clamp(cpus, 2, 32) + std::clamp(cpus / 2, 2, 16) + 8;
  for (const std::size_t addresses : {1u, 3u}) {
    Options options;
    options.listen.resize(addresses);
    for (const int threads : {0, 1, 9}) {
      options.threads = threads;
      const int computing = threads > 0 ? threads : schedule::DefaultThreads();
      EXPECT_EQ(ComputingThreads(options), computing);
      EXPECT_EQ(ThreadsOf(options), computing + of_grpc + ModelService::kFileThreads + ModelService::kTableThreads + 8 +
                                        2 * static_cast<int>(addresses));
    }
  }
}

TEST(ThreadsTest, AreThereWithoutALimit) { EXPECT_TRUE(CheckThreads(30).ok()); }

// In a process that may start `most` more at first: it ends with 0 if the check says so and its words name the limit.
int CheckInALimitedProcess(rlim_t most, int threads) {
  const pid_t child = fork();
  if (child == 0) {
    // The limit does not hold for root; nobody else has this user.
    constexpr uid_t kNobodyElse = 54321;
    if (getuid() == 0 && setresuid(kNobodyElse, kNobodyElse, kNobodyElse) != 0) _exit(3);
    const rlimit limit = {most + 1, most + 1};
    if (setrlimit(RLIMIT_NPROC, &limit) != 0) _exit(3);
    const absl::Status status = CheckThreads(threads);
    if (status.ok()) _exit(1);
    const bool in_words =
        absl::IsResourceExhausted(status) && std::string(status.message()).find("ulimit -u") != std::string::npos;
    _exit(in_words ? 0 : 2);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ThreadsTest, TooFewAreSaidInWords) {
  EXPECT_EQ(CheckInALimitedProcess(3, 10), 0);
  EXPECT_EQ(CheckInALimitedProcess(9, 10), 0);
}

TEST(ThreadsTest, JustEnoughAreEnough) {
  if (getuid() != 0) GTEST_SKIP() << "the limit counts whatever else this user runs";
  EXPECT_EQ(CheckInALimitedProcess(10, 10), 1);
}

}  // namespace
}  // namespace attnd::server
