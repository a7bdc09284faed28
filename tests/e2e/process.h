// The real attnd binary as a child process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace attnd::e2e {

// What to start: by default the attnd of this build, in this process's environment.
struct Program {
  std::string path;                      // empty: ATTND_BINARY
  std::vector<std::string> environment;  // NAME=value, beside what this process has
};

// The attnd of this build.
std::string AttndBinary();

// Starts a program with `arguments`; its standard output and error arrive in one text. Killed if still running when
// destroyed. Not thread-safe.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const Program& program = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Reads until the output holds `text` or ends; whether it was seen.
  bool WaitForOutput(const std::string& text);
  // The address of the line that says what the process listens on; empty if it ended without one.
  std::string WaitForAddress();
  void Signal(int signal);
  pid_t pid() const { return pid_; }
  // Reads the rest of the output and waits. The exit code; minus the signal that ended it.
  int Wait();
  const std::string& output() const { return output_; }

 private:
  bool ReadMore();

  pid_t pid_ = -1;
  int pipe_ = -1;
  std::string output_;
};

}  // namespace attnd::e2e
