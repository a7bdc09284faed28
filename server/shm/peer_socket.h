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
  absl::string_view bytes;  // in the buffer that Receive was given
  bool whole = true;        // it fitted there, and so did its descriptors
  std::vector<shm::UniqueFd> descriptors;
};

// Sends from any thread without waiting; what finds no room is kept, and the listener is asked for a Flush. While
// something is kept, and in a pause, nothing is to be received, so that at most what the calls under way make is ever
// kept. Where there is no memory to keep an answer, its connection ends. Nothing here throws.
class PeerSocket final : public DatagramSink {
 public:
  using Clock = std::chrono::steady_clock;

  // What the sockets of a listener have in common. The descriptors are the listener's; a closed socket uses them no
  // more.
  struct Watch {
    Watch(int epoll, int wake) : epoll(epoll), wake(wake) {}
    const int epoll;                     // watches each socket, by its descriptor
    const int wake;                      // an eventfd, which wakes the listener
    std::atomic<std::int64_t> stuck{0};  // sockets that keep something
  };

  PeerSocket(shm::UniqueFd fd, std::shared_ptr<Watch> watch) : watch_(std::move(watch)), fd_(std::move(fd)) {}

  void Send(std::string datagram, std::shared_ptr<const void> held) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Pause() override ABSL_LOCKS_EXCLUDED(mutex_);
  void Resume() override ABSL_LOCKS_EXCLUDED(mutex_);

  // What follows is for the listener's thread.

  // Starts to watch for datagrams; false if the system cannot.
  bool Begin();
  // The next datagram. Nullopt if there is none: `ended` then tells whether none will come.
  std::optional<Datagram> Receive(absl::Span<char> buffer, bool& ended) ABSL_LOCKS_EXCLUDED(mutex_);
  // Sends what is kept, as far as there is room.
  void Flush() ABSL_LOCKS_EXCLUDED(mutex_);
  // Since when nothing could be sent of what is kept; nullopt if nothing is kept.
  std::optional<Clock::time_point> StuckSince() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The peer can send no more; what it has sent can be received still.
  void StopReceiving() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the connection for the peer, drops what is kept, and gives the descriptor back, whose close may take long if
  // datagrams with descriptors wait in it.
  shm::UniqueFd Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Kept {
    std::string datagram;
    std::shared_ptr<const void> held;
  };

  enum class Sent : std::uint8_t { kYes, kNoRoom, kBroken };
  Sent TrySend(absl::string_view datagram) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Watches for what it can go on with, and for the connection's end; false if the system cannot. `operation`:
  // EPOLL_CTL_ADD or EPOLL_CTL_MOD.
  bool WatchNow(int operation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The peer takes nothing any more: the listener is told to end the connection.
  void Break() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<Watch> watch_;
  mutable absl::Mutex mutex_;
  shm::UniqueFd fd_ ABSL_GUARDED_BY(mutex_);  // none once closed
  std::list<Kept> kept_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point stuck_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
