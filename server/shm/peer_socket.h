// The socket of one connection at PATH.shm.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "attnd/shm/unique_fd.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// A received datagram.
struct Datagram {
  absl::string_view bytes;  // in Receive's buffer
  bool whole = true;        // the datagram and its descriptors were not cut
  std::vector<shm::UniqueFd> descriptors;
};

// Sends from any thread without waiting. A datagram that finds no room is kept, and the listener is woken to Flush it.
// While datagrams are kept, or in a pause, nothing is received: so at most the answers of the calls under way are kept.
// Without memory to keep an answer, the connection ends. No function throws.
class PeerSocket final : public DatagramSink {
 public:
  using Clock = std::chrono::steady_clock;

  // State that the sockets of a listener share. The listener owns the descriptors; a closed socket no longer uses them.
  struct Watch {
    Watch(int epoll, int wake) : epoll(epoll), wake(wake) {}
    const int epoll;                     // watches each socket, by its descriptor
    const int wake;                      // an eventfd, which wakes the listener
    std::atomic<std::int64_t> stuck{0};  // sockets that keep datagrams
  };

  PeerSocket(shm::UniqueFd fd, std::shared_ptr<Watch> watch) : watch_(std::move(watch)), fd_(std::move(fd)) {}

  void Send(std::string datagram, std::shared_ptr<const void> held) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Pause() override ABSL_LOCKS_EXCLUDED(mutex_);
  void Resume() override ABSL_LOCKS_EXCLUDED(mutex_);

  // The functions below are for the listener's thread.

  // Starts watching for datagrams; false if the system cannot.
  bool Begin();
  // The next datagram. Returns nullopt if there is none; `ended` then says whether none will ever come.
  std::optional<Datagram> Receive(absl::Span<char> buffer, bool& ended) ABSL_LOCKS_EXCLUDED(mutex_);
  // Sends kept datagrams as long as there is room.
  void Flush() ABSL_LOCKS_EXCLUDED(mutex_);
  // Since when no kept datagram could be sent; nullopt if none is kept.
  std::optional<Clock::time_point> StuckSince() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Stops the peer from sending; what it has sent can still be received.
  void StopReceiving() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the connection for the peer, drops what is kept, and returns the descriptor, whose close may take long if
  // datagrams with descriptors wait in it.
  shm::UniqueFd Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Kept {
    std::string datagram;
    std::shared_ptr<const void> held;
  };

  enum class Sent : std::uint8_t { kYes, kNoRoom, kBroken };
  Sent TrySend(absl::string_view datagram) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Watches for the events that it can handle now, and for the connection's end; false if the system cannot.
  // `operation`: EPOLL_CTL_ADD or EPOLL_CTL_MOD.
  bool WatchNow(int operation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The peer no longer reads: makes the listener end the connection.
  void Break() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<Watch> watch_;
  mutable absl::Mutex mutex_;
  shm::UniqueFd fd_ ABSL_GUARDED_BY(mutex_);  // invalid once closed
  std::list<Kept> kept_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point stuck_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
