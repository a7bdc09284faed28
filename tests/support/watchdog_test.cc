// The programs that hang are this one again: its disabled tests, with a second for each.

#include "watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::test {
namespace {

using testing::HasSubstr;

struct Ended {
  int signal = 0;  // that ended it; 0: none
  int code = 0;
  std::string output;
};

// Runs a disabled test of this program in a process of its own, in which a test may take `seconds`.
class Program {
 public:
  explicit Program(const std::string& test, const std::string& seconds = "1") {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    const std::string filter = "--gtest_filter=" + test;
    const std::string variable = "ATTND_TEST_SECONDS=" + seconds;
    child_ = fork();
    if (child_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      putenv(const_cast<char*>(variable.c_str()));
      execl("/proc/self/exe", "hanging", filter.c_str(), "--gtest_also_run_disabled_tests", nullptr);
      _exit(127);
    }
    close(ends[1]);
    output_ = ends[0];
  }

  Ended End() const {
    Ended ended;
    std::array<char, 1024> chunk;
    for (ssize_t size; (size = read(output_, chunk.data(), chunk.size())) > 0;) {
      ended.output.append(chunk.data(), static_cast<std::size_t>(size));
    }
    close(output_);
    int status = 0;
    waitpid(child_, &status, 0);
    ended.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    return ended;
  }

 private:
  pid_t child_ = -1;
  int output_ = -1;
};

void WaitForever() { absl::Notification().WaitForNotification(); }

class DISABLED_Hanging : public testing::Test {};

TEST_F(DISABLED_Hanging, Lock) {
  std::mutex mutex;
  const std::lock_guard<std::mutex> held(mutex);
  std::thread([&] { const std::lock_guard<std::mutex> never(mutex); }).join();
}
TEST_F(DISABLED_Hanging, Condition) { WaitForever(); }
TEST_F(DISABLED_Hanging, Read) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 1);
}
TEST_F(DISABLED_Hanging, Loop) {
  for (volatile bool go_on = true; go_on;) {
  }
}
TEST_F(DISABLED_Hanging, SignalsBlocked) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  WaitForever();
}

struct HangsInSetUp : testing::Test {
  void SetUp() override { WaitForever(); }
};
using DISABLED_SetUp = HangsInSetUp;
TEST_F(DISABLED_SetUp, Test) {}

class DISABLED_SuiteTearDown : public testing::Test {
 public:
  static void TearDownTestSuite() { WaitForever(); }
};
TEST_F(DISABLED_SuiteTearDown, Test) {}

class DISABLED_Exit : public testing::Test {};
TEST_F(DISABLED_Exit, Test) { std::atexit(WaitForever); }

// Each of the three takes less than the time that a test may take, together they take more.
class DISABLED_Slow : public testing::TestWithParam<int> {};
TEST_P(DISABLED_Slow, Test) { usleep(900000); }
INSTANTIATE_TEST_SUITE_P(Three, DISABLED_Slow, testing::Values(1, 2, 3));

class DISABLED_Seconds : public testing::Test {};
TEST_F(DISABLED_Seconds, Test) {}

TEST(WatchdogTest, NamesWhatHangsAndEndsTheProgram) {
  struct Hang {
    std::string test;
    std::string named;
    Program program{test};  // all at once
  };
  const Hang hangs[] = {
      {"DISABLED_Hanging.Lock", "DISABLED_Hanging.Lock"},
      {"DISABLED_Hanging.Condition", "DISABLED_Hanging.Condition"},
      {"DISABLED_Hanging.Read", "DISABLED_Hanging.Read"},
      {"DISABLED_Hanging.Loop", "DISABLED_Hanging.Loop"},
      {"DISABLED_SetUp.Test", "DISABLED_SetUp.Test"},
      {"DISABLED_SuiteTearDown.Test", "after DISABLED_SuiteTearDown.Test"},
      {"DISABLED_Exit.Test", "after DISABLED_Exit.Test"},
  };
  const Program blocked("DISABLED_Hanging.SignalsBlocked");
  for (const Hang& hang : hangs) {
    SCOPED_TRACE(hang.test);
    const Ended ended = hang.program.End();
    EXPECT_EQ(ended.signal, SIGABRT) << ended.code;
    EXPECT_THAT(ended.output, HasSubstr("\n" + hang.named + ": still runs after 1 seconds\n"));
  }
  EXPECT_EQ(blocked.End().signal, SIGKILL);
}

TEST(WatchdogTest, CountsEachTestByItself) {
  const Ended ended = Program("Three/DISABLED_Slow.*", "2").End();
  EXPECT_EQ(ended.signal, 0);
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.output, HasSubstr("[  PASSED  ] 3 tests"));
}

TEST(WatchdogTest, RefusesATimeThatIsNone) {
  for (const char* const seconds : {"", "0", "-1", "long"}) {
    const Ended ended = Program("DISABLED_Seconds.Test", seconds).End();
    EXPECT_EQ(ended.code, 2) << seconds;
    EXPECT_THAT(ended.output, HasSubstr("ATTND_TEST_SECONDS: expected a number from 1"));
  }
  EXPECT_EQ(Program("DISABLED_Seconds.Test", "5").End().code, 0);
}

TEST(WatchdogTest, WatchesThisProgram) {
  EXPECT_GE(TestSeconds(), 1);
  EXPECT_LE(TestSeconds(), 400) << "less than the timeout of ctest";
}

}  // namespace
}  // namespace attnd::test
