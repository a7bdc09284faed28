// The servers that `attnd_bench wire` calls, as separate processes: the shipped binary, and the echo.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pages.h"

namespace attnd::bench {

// The addresses that the servers listen on.
struct WireAddresses {
  std::string attnd;  // the shipped server, or the echo
  std::string empty;  // calls of generated messages without fields, answered at once
};

struct WireServerOptions {
  std::string attnd_binary;
  std::string echo_binary;
  std::string folder;  // for Unix sockets
  bool tcp = false;    // listen on the loopback instead
  bool shared_memory = false;
  bool echo = false;                          // answer with q instead of computing: the same codec, no arithmetic
  int cpu = -1;                               // CPU that the processes are pinned to; -1: not pinned
  PageKind pages = PageKind::kHuge;           // pages that attnd's heap may use
  std::vector<std::string> channel_settings;  // for the echo, name=number
};

// A child process. The destructor kills it and waits for it; it also dies with this process. Not thread-safe.
class ChildProcess {
 public:
  // Starts argv[0], pinned to `cpu` (-1: not pinned). With kSmall, the system gives it no huge pages. Its standard
  // output and standard error are merged.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& argv, int cpu,
                                                             PageKind pages = PageKind::kHuge);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Sends a line to its standard input.
  void WriteLine(const std::string& line);

  // The next line of its output, without the newline. Errors: UNAVAILABLE if the output ended.
  absl::StatusOr<std::string> ReadLine();

  // CPU time that it has used, in milliseconds.
  double CpuMilliseconds() const;

 private:
  ChildProcess(pid_t pid, int output, int input) : pid_(pid), output_(output), input_(input) {}
  const pid_t pid_;
  const int output_;
  const int input_;
  std::string unread_;
};

// Errors of Start: UNAVAILABLE, with a server's output, if one does not start. Not thread-safe.
class WireServer {
 public:
  static absl::StatusOr<std::unique_ptr<WireServer>> Start(const WireServerOptions& options);

  const WireAddresses& addresses() const { return addresses_; }

  // CPU time of the server at `addresses().attnd`, in milliseconds.
  double CpuMilliseconds() const;

 private:
  WireServer() = default;
  std::unique_ptr<ChildProcess> echo_;   // always running: it answers the empty calls
  std::unique_ptr<ChildProcess> attnd_;  // null if the echo is the server to call
  WireAddresses addresses_;
};

}  // namespace attnd::bench
