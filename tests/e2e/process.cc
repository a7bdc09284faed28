#include "process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "gtest/gtest.h"

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

bool Process::ReadMore() {
  std::array<char, 4096> chunk;
  ssize_t size;
  do {
    size = read(pipe_, chunk.data(), chunk.size());
  } while (size < 0 && errno == EINTR);
  if (size <= 0) return false;
  output_.append(chunk.data(), static_cast<std::size_t>(size));
  return true;
}

bool Process::WaitForOutput(const std::string& text) {
  while (output_.find(text) == std::string::npos) {
    if (!ReadMore()) return false;
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

int Process::Wait() {
  while (ReadMore()) {
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace attnd::e2e
