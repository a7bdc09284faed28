// The servers that `attnd_bench wire` calls, in a process of their own.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace attnd::bench {

// What the child listens on, all in one folder.
struct WireAddresses {
  std::string attnd;  // the server as it is shipped, or the echo
  std::string empty;  // calls of generated messages without any field, answered at once
};

// Settings of gRPC's channels, by name.
using ChannelSettings = std::vector<std::pair<std::string, int>>;

struct WireServerOptions {
  std::string folder;  // for Unix sockets
  bool tcp = false;    // listen on the loopback instead
  bool shared_memory = false;
  bool echo = false;         // answer with q instead of computing: the same codec, no arithmetic
  int cpu = -1;              // that the process is pinned to; -1: not pinned
  ChannelSettings settings;  // of the echo's server
};

// A child process with both servers; ended with the object (and with this process). Make it before this process uses
// gRPC. Errors: UNAVAILABLE if the servers do not start.
class WireServer {
 public:
  static absl::StatusOr<std::unique_ptr<WireServer>> Start(const WireServerOptions& options);
  ~WireServer();
  WireServer(const WireServer&) = delete;
  WireServer& operator=(const WireServer&) = delete;

  const WireAddresses& addresses() const { return addresses_; }

  // CPU time that the child has used, in milliseconds.
  double CpuMilliseconds() const;

 private:
  WireServer(pid_t pid, WireAddresses addresses) : pid_(pid), addresses_(std::move(addresses)) {}
  const pid_t pid_;
  const WireAddresses addresses_;
};

}  // namespace attnd::bench
