#include "socket_floor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "memory/huge_pages.h"

namespace attnd::bench {
namespace {

using Pair = std::pair<int, int>;

// Closes the descriptors of a connection attempt that failed.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::StatusOr<Pair> ConnectUnix() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return absl::ErrnoToStatus(errno, "socketpair");
  return Pair(fds[0], fds[1]);
}

absl::StatusOr<Pair> ConnectTcp() {
  Descriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Descriptor client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (listener.get() < 0 || client.get() < 0) return absl::ErrnoToStatus(errno, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.get(), generic, size) != 0) return absl::ErrnoToStatus(errno, "bind");
  if (listen(listener.get(), 1) != 0) return absl::ErrnoToStatus(errno, "listen");
  if (getsockname(listener.get(), generic, &size) != 0) return absl::ErrnoToStatus(errno, "getsockname");
  if (connect(client.get(), generic, size) != 0) return absl::ErrnoToStatus(errno, "connect");
  Descriptor server(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (server.get() < 0) return absl::ErrnoToStatus(errno, "accept");
  for (int fd : {client.get(), server.get()}) {
    const int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
      return absl::ErrnoToStatus(errno, "TCP_NODELAY");
    }
  }
  return Pair(client.release(), server.release());
}

bool SendAll(int fd, const PageBuffer& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

bool ReceiveAll(int fd, PageBuffer& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = recv(fd, bytes.data() + done, bytes.size() - done, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

absl::Status Pin(pthread_t thread, int cpu) {
  if (cpu < 0) return absl::OkStatus();
  if (cpu >= CPU_SETSIZE)
    return absl::InvalidArgumentError(absl::StrCat("cpu: expected < ", CPU_SETSIZE, ", got ", cpu));
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  const int error = pthread_setaffinity_np(thread, sizeof(set), &set);
  if (error == EINVAL) {
    return absl::InvalidArgumentError(absl::StrCat("cpu: expected one that this process may use, got ", cpu));
  }
  return error == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, "pthread_setaffinity_np");
}

// Resident from the start, so that no exchange pays for a page's first touch.
PageBuffer TensorBuffer(const SocketEchoOptions& options) {
  PageBuffer buffer(static_cast<std::size_t>(options.tensor_bytes), options.pages);
  std::memset(buffer.data(), 0, buffer.size());
  return buffer;
}

std::vector<PageBuffer> RequestBuffers(const SocketEchoOptions& options) {
  std::vector<PageBuffer> buffers;
  for (std::int64_t i = 0; i < options.request_tensors; ++i) buffers.push_back(TensorBuffer(options));
  return buffers;
}

absl::Status ValidateSizes(const SocketEchoOptions& options) {
  if (options.tensor_bytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor_bytes: expected >= 1, got ", options.tensor_bytes));
  }
  if (options.request_tensors < 1) {
    return absl::InvalidArgumentError(absl::StrCat("request_tensors: expected >= 1, got ", options.request_tensors));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SocketEcho>> SocketEcho::Create(const SocketEchoOptions& options) {
  if (absl::Status sizes = ValidateSizes(options); !sizes.ok()) return sizes;
  absl::StatusOr<Pair> pair = options.kind == SocketKind::kTcp ? ConnectTcp() : ConnectUnix();
  if (!pair.ok()) return pair.status();
  auto echo = std::unique_ptr<SocketEcho>(new SocketEcho(options, pair->first, pair->second));
  if (absl::Status pinned = Pin(echo->server_thread_.native_handle(), options.server_cpu); !pinned.ok()) return pinned;
  if (absl::Status pinned = Pin(pthread_self(), options.client_cpu); !pinned.ok()) return pinned;
  return echo;
}

SocketEcho::SocketEcho(const SocketEchoOptions& options, int client, int server)
    : options_(options),
      client_(client),
      server_(server),
      request_(RequestBuffers(options)),
      answer_(TensorBuffer(options)),
      server_thread_([this] { Serve(); }) {}

SocketEcho::~SocketEcho() {
  shutdown(client_, SHUT_RDWR);
  server_thread_.join();
  close(client_);
  close(server_);
}

void SocketEcho::Serve() {
  std::vector<PageBuffer> received = RequestBuffers(options_);
  for (;;) {
    for (PageBuffer& tensor : received) {
      if (!ReceiveAll(server_, tensor)) return;
    }
    if (!SendAll(server_, received.back())) return;
  }
}

absl::StatusOr<absl::Duration> SocketEcho::Exchange() {
  const std::byte stamp{++exchanges_};
  const std::size_t last = answer_.size() - 1;
  request_.back().data()[0] = stamp;
  request_.back().data()[last] = stamp;
  const absl::Time start = absl::Now();
  for (const PageBuffer& tensor : request_) {
    if (!SendAll(client_, tensor)) return absl::UnavailableError("the echo closed the connection");
  }
  if (!ReceiveAll(client_, answer_)) return absl::UnavailableError("the echo closed the connection");
  const absl::Duration elapsed = absl::Now() - start;
  if (answer_.data()[0] != stamp || answer_.data()[last] != stamp) {
    return absl::DataLossError("the echo answered with other bytes than were sent");
  }
  return elapsed;
}

double SocketEcho::RequestHugeFraction() const {
  double least = 1;
  for (const PageBuffer& tensor : request_) least = std::min(least, memory::HugeFraction(tensor.data(), tensor.size()));
  return least;
}

double MeasureCopyBytesPerSecond(std::int64_t bytes, int repetitions, PageKind pages) {
  PageBuffer from(static_cast<std::size_t>(bytes), pages);
  PageBuffer to(from.size(), pages);
  std::memset(from.data(), 1, from.size());
  std::memset(to.data(), 0, to.size());
  absl::Duration best = absl::InfiniteDuration();
  for (int i = 0; i < repetitions; ++i) {
    from.data()[static_cast<std::size_t>(i) % from.size()] ^= std::byte{1};
    const absl::Time start = absl::Now();
    std::memcpy(to.data(), from.data(), from.size());
    // Forces the copy, although nothing here reads it.
    asm volatile("" : : "r"(to.data()) : "memory");
    best = std::min(best, absl::Now() - start);
  }
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(std::max(best, absl::Nanoseconds(1)));
}

}  // namespace attnd::bench
