// The real attnd binary as a child process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace attnd::e2e {

// What to start: by default the attnd of this build, in this process's environment.
struct Program {
  std::string path;                      // empty: ATTND_BINARY
  std::vector<std::string> environment;  // NAME=value, beside what this process has
};

// The attnd of this build.
std::string AttndBinary();

// Starts a program with `arguments`; its standard output and error arrive in one text. Killed if still running when
// destroyed, or when the thread that started it ends. Not thread-safe.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const Program& program = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // All that wait do so for test::Patience() at most. Then they fail the test and kill the process.

  // Reads until the output holds `text` or ends; whether it was seen.
  bool WaitForOutput(const std::string& text);
  // The address of the line that says what the process listens on; empty if it ended without one.
  std::string WaitForAddress();
  void Signal(int signal);
  pid_t pid() const { return pid_; }
  // Sends SIGSTOP; returns true once all threads have stopped.
  bool Freeze();
  // Reads the rest of the output and waits. The exit code; minus the signal that ended it.
  int Wait();
  const std::string& output() const { return output_; }

 private:
  // False at the end of the output, or after `deadline`.
  bool ReadMore(absl::Time deadline);
  // The state of a child that has ended or stopped, as of waitpid.
  int WaitForState(int options, absl::Time deadline);
  void Expire(const std::string& what);

  pid_t pid_ = -1;
  int pipe_ = -1;
  std::string output_;
};

}  // namespace attnd::e2e
