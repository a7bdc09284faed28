// In processes of their own, whose standard streams are closed or pipes.
#include "files/standard_streams.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>

namespace attnd::files {
namespace {

// The exit status of a process that runs `child`; -1 if it does not exit.
int StatusOf(
    const std::function<int()>& child, const std::function<void()>& meanwhile = [] {}) {
  const pid_t process = fork();
  if (process == 0) {
    alarm(20);  // ends a child that waits for ever
    _exit(child());
  }
  meanwhile();
  int status = 0;
  if (waitpid(process, &status, 0) != process || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

bool FailsWithBadDescriptor(ssize_t result) { return result < 0 && errno == EBADF; }

TEST(StandardStreamsTest, ClosedStreamsStayClosedAndAreNotReused) {
  for (int closed = 0; closed < 8; ++closed) {  // bit n: descriptor n is closed
    const int status = StatusOf([closed] {
      for (int n = 0; n < 3; ++n) {
        if ((closed >> n & 1) != 0) close(n);
      }
      HoldStandardStreams();
      const int opened = open("/dev/null", O_RDWR);
      if (opened < 3) return 1;
      char byte = 'x';
      for (int n = 0; n < 3; ++n) {
        if ((closed >> n & 1) == 0) continue;
        if (!FailsWithBadDescriptor(read(n, &byte, 1))) return 2;
        if (!FailsWithBadDescriptor(write(n, &byte, 1))) return 3;
      }
      for (int n = 0; n < 3; ++n) {
        if ((closed >> n & 1) == 0 && (fcntl(n, F_GETFL) & O_PATH) != 0) return 4;
      }
      return 0;
    });
    EXPECT_EQ(status, 0) << closed;
  }
}

TEST(StandardStreamsTest, AFailedWriteIsAnError) {
  EXPECT_EQ(StatusOf([] {
              close(STDOUT_FILENO);
              HoldStandardStreams();
              return WriteStandardOutput("x").ok() ? 1 : 0;
            }),
            0);
  EXPECT_EQ(StatusOf([] {
              dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
              return static_cast<int>(WriteStandardOutput("x").code());
            }),
            static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST(StandardStreamsTest, ANonBlockingPipeGetsAllOfTheText) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const std::string text(300000, 'x');  // more than a pipe holds
  std::string got;
  const int status = StatusOf(
      [&] {
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        dup2(ends[1], STDOUT_FILENO);
        return WriteStandardOutput(text).ok() ? 0 : 1;
      },
      [&] {
        close(ends[1]);
        std::string part(4096, ' ');
        pollfd readable = {ends[0], POLLIN, 0};
        while (poll(&readable, 1, 20'000) == 1) {
          const ssize_t count = read(ends[0], part.data(), part.size());
          if (count <= 0) break;
          got.append(part, 0, static_cast<std::size_t>(count));
        }
        close(ends[0]);
      });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(got.size(), text.size());
}

}  // namespace
}  // namespace attnd::files
