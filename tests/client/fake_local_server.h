// A socket PATH.shm in this process that takes calls and sessions (attnd/v1/local.proto) as a test tells it to.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "attnd/v1/local.pb.h"

namespace attnd::client {

// One thread serves all connections.
class FakeLocalServer {
 public:
  // A connection; open for as long as somebody holds it.
  using Peer = std::shared_ptr<const shm::UniqueFd>;
  // Takes a datagram; false ends the connection. Sends what it wants by Send.
  using Handler = std::function<bool(const Peer& peer, const v1::LocalRequest& request)>;

  // Listens at `path` at once. Registrations of memory are refused, unless `shares_memory`.
  explicit FakeLocalServer(const std::string& path);
  ~FakeLocalServer();
  FakeLocalServer(const FakeLocalServer&) = delete;
  FakeLocalServer& operator=(const FakeLocalServer&) = delete;

  // Serves no more: no handler runs after this.
  void Stop();

  // Ends all connections.
  void HangUp() ABSL_LOCKS_EXCLUDED(mutex_);

  // What to do with a hello, a call, a cancellation, a session's message and its close; by default Greet, Answer and
  // three times nothing.
  void OnHello(Handler handler) { Set(hello_, std::move(handler)); }
  void OnCall(Handler handler) { Set(call_, std::move(handler)); }
  void OnCancel(Handler handler) { Set(cancel_, std::move(handler)); }
  void OnSession(Handler handler) { Set(session_, std::move(handler)); }
  void OnSessionClose(Handler handler) { Set(session_close_, std::move(handler)); }
  // What to do before a fixed message is answered; nothing by default.
  using FixedHandler = std::function<void(const Peer& peer, shm::Operation operation)>;
  void OnFixed(FixedHandler handler) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    fixed_ = std::move(handler);
  }

  // Takes a fixed message; true if it has answered the message or leaves it without an answer. By default none does.
  using RequestHandler = std::function<bool(const Peer& peer, const shm::Request& request)>;
  void OnRequest(RequestHandler handler) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    request_ = std::move(handler);
  }
  // Answers a fixed message. `mark` is the handle's first byte.
  static bool Reply(const Peer& peer, int code, unsigned char mark = 0);

  static bool Greet(const Peer& peer, const v1::LocalRequest&) { return Welcome(peer, {}); }
  // A welcome; fields that are not set are those of a server that takes calls.
  static bool Welcome(const Peer& peer, v1::LocalWelcome welcome);
  // The plain formula's result.
  static bool Answer(const Peer& peer, const v1::LocalRequest& request);
  static v1::LocalReply ResultOf(const v1::LocalRequest& request);
  static bool Send(const Peer& peer, const std::string& datagram);

  // Where a tensor of `size` bytes is that a caller shares; null, and a failure, if it is in no region. The memory
  // stays mapped when the region is released, as it may at a server that still computes.
  unsigned char* SharedData(const v1::SharedTensor& tensor, std::size_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  // The request with the tensors that are in shared memory in it.
  v1::ComputeAttentionRequest WithTensors(const v1::ComputeAttentionRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);
  // Moves results to the places that `request` names for them.
  void PlaceResults(const v1::ComputeAttentionRequest& request, std::string& output, std::string& log_sum_exp)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A client that asks for a sign of life is left without.
  std::atomic<bool> lifeless{false};
  std::atomic<bool> shares_memory{false};
  std::atomic<int> connections{0}, hellos{0}, calls{0}, cancels{0}, signs{0};
  // Registrations of memory, and those released again.
  std::atomic<int> registered{0}, released{0};
  // Connections that stand now, as far as the server has seen.
  std::atomic<int> standing{0};

 private:
  void Set(Handler& to, Handler handler) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    to = std::move(handler);
  }
  Handler Get(const Handler& from) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return from;
  }
  void Serve();
  bool Take(const Peer& peer);
  bool TakeFixed(const Peer& peer, const shm::Request& request, const shm::UniqueFd& memory);

  absl::Mutex mutex_;
  Handler hello_, call_, cancel_, session_, session_close_;
  FixedHandler fixed_ ABSL_GUARDED_BY(mutex_);
  RequestHandler request_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<const shm::UniqueFd>> peers_ ABSL_GUARDED_BY(mutex_);
  struct Region {
    unsigned char* data;
    std::size_t size;
  };
  std::map<std::string, Region> regions_ ABSL_GUARDED_BY(mutex_);  // by handle
  std::vector<Region> unmapped_later_ ABSL_GUARDED_BY(mutex_);
  const shm::UniqueFd listener_;
  int stop_[2];
  std::thread thread_;
};

}  // namespace attnd::client
