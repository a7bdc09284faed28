#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {

std::string AttndBinary() { return ATTND_BINARY; }

Process::Process(const std::vector<std::string>& arguments, const Program& program) {
  std::vector<std::string> words = {program.path.empty() ? ATTND_BINARY : program.path};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> environment = program.environment;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe: errno " << errno;
    return;
  }
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is ended leaves nothing behind that holds ctest's pipe
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    for (std::string& variable : environment) putenv(variable.data());
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(ends[1]);
  pipe_ = ends[0];
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (pipe_ >= 0) close(pipe_);
}

void Process::Expire(const std::string& what) {
  ADD_FAILURE() << what << " within " << test::Patience() << "; its output so far:\n" << output_;
  kill(pid_, SIGKILL);
}

bool Process::ReadMore(absl::Time deadline) {
  std::array<char, 4096> chunk;
  ssize_t size;
  do {
    pollfd readable{pipe_, POLLIN, 0};
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    if (poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(left))) == 0) return false;
    size = read(pipe_, chunk.data(), chunk.size());
  } while (size < 0 && errno == EINTR);
  if (size <= 0) return false;
  output_.append(chunk.data(), static_cast<std::size_t>(size));
  return true;
}

bool Process::WaitForOutput(const std::string& text) {
  const absl::Time deadline = absl::Now() + test::Patience();
  while (output_.find(text) == std::string::npos) {
    if (ReadMore(deadline)) continue;
    if (absl::Now() >= deadline) Expire("the process has not said \"" + text + "\"");
    return false;
  }
  return true;
}

std::string Process::WaitForAddress() {
  const std::string before = "listens on ";
  if (!WaitForOutput("threads)\n")) return "";
  const std::size_t begin = output_.find(before);
  if (begin == std::string::npos) return "";
  return output_.substr(begin + before.size(),
                        output_.find_first_of(", ", begin + before.size()) - begin - before.size());
}

void Process::Signal(int signal) { kill(pid_, signal); }

int Process::WaitForState(int options, absl::Time deadline) {
  int status = 0;
  while (waitpid(pid_, &status, options | WNOHANG) == 0) {
    if (absl::Now() >= deadline) {
      Expire("the process has not changed its state");
      waitpid(pid_, &status, 0);
      break;
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return status;
}

bool Process::Freeze() {
  kill(pid_, SIGSTOP);
  const int status = WaitForState(WUNTRACED, absl::Now() + test::Patience());
  if (!WIFSTOPPED(status)) pid_ = -1;
  return WIFSTOPPED(status);
}

int Process::Wait() {
  const absl::Time deadline = absl::Now() + test::Patience();
  while (ReadMore(deadline)) continue;
  const int status = WaitForState(0, deadline);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace attnd::e2e
