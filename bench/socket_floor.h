// The machine's own limits for the wire: an echo of tensors over a plain loopback socket, and a plain copy of them. The
// wire benchmarks measure these in the same run as gRPC.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "pages.h"

namespace attnd::bench {

enum class SocketKind : std::uint8_t { kTcp, kUnix };

struct SocketEchoOptions {
  SocketKind kind = SocketKind::kTcp;
  std::int64_t tensor_bytes = 0;     // of each tensor, >= 1
  std::int64_t request_tensors = 3;  // sent to the echo, >= 1; the answer is the last one
  int client_cpu = -1;               // CPU that the calling thread of Exchange() is pinned to; -1: not pinned
  int server_cpu = -1;               // the same for the answering thread
  PageKind pages = PageKind::kHuge;  // of both sides' buffers
};

// A connected pair of sockets with its own answering thread. Not thread-safe.
class SocketEcho {
 public:
  // Connects. Errors: INVALID_ARGUMENT (sizes, a CPU that this process may not use), or those of a failed system call.
  static absl::StatusOr<std::unique_ptr<SocketEcho>> Create(const SocketEchoOptions& options);

  // Closes the connection and joins the answering thread.
  ~SocketEcho();
  SocketEcho(const SocketEcho&) = delete;
  SocketEcho& operator=(const SocketEcho&) = delete;

  // Sends the request's tensors, each from its own buffer, and receives the answer. Returns the time from the first
  // byte sent to the last byte received. Errors: UNAVAILABLE if the other side closed; DATA_LOSS if the first and last
  // bytes of the answer differ from those of the tensor that was sent.
  absl::StatusOr<absl::Duration> Exchange();

  // The smallest HugeFraction, 0 to 1, of the buffers that Exchange() sends.
  double RequestHugeFraction() const;

  std::int64_t bytes_per_exchange() const { return options_.tensor_bytes * (options_.request_tensors + 1); }

 private:
  SocketEcho(const SocketEchoOptions& options, int client, int server);
  void Serve();

  const SocketEchoOptions options_;
  const int client_;
  const int server_;
  std::uint8_t exchanges_ = 0;
  std::vector<PageBuffer> request_;
  PageBuffer answer_;
  std::thread server_thread_;
};

// Bytes copied per second in the fastest of `repetitions` copies of `bytes` bytes between two warm buffers on `pages`.
// Requires bytes >= 1 and repetitions >= 1.
double MeasureCopyBytesPerSecond(std::int64_t bytes, int repetitions, PageKind pages);

}  // namespace attnd::bench
