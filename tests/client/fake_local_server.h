// A socket PATH.shm in this process that takes calls (attnd/v1/local.proto) as a test tells it to.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
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

  // Listens at `path` at once. Registrations of memory are refused, so that none is shared.
  explicit FakeLocalServer(const std::string& path);
  ~FakeLocalServer();
  FakeLocalServer(const FakeLocalServer&) = delete;
  FakeLocalServer& operator=(const FakeLocalServer&) = delete;

  // What to do with a hello, a call and a cancellation; by default Greet, Answer and nothing.
  void OnHello(Handler handler) { Set(hello_, std::move(handler)); }
  void OnCall(Handler handler) { Set(call_, std::move(handler)); }
  void OnCancel(Handler handler) { Set(cancel_, std::move(handler)); }

  static bool Greet(const Peer& peer, const v1::LocalRequest&) { return Welcome(peer, {}); }
  // A welcome; fields that are not set are those of a server that takes calls.
  static bool Welcome(const Peer& peer, v1::LocalWelcome welcome);
  // The plain formula's result.
  static bool Answer(const Peer& peer, const v1::LocalRequest& request);
  static v1::LocalReply ResultOf(const v1::LocalRequest& request);
  static bool Send(const Peer& peer, const std::string& datagram);

  // A client that asks for a sign of life is left without.
  std::atomic<bool> lifeless{false};
  std::atomic<int> connections{0}, hellos{0}, calls{0}, cancels{0}, signs{0};
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

  absl::Mutex mutex_;
  Handler hello_, call_, cancel_;
  const shm::UniqueFd listener_;
  int stop_[2];
  std::thread thread_;
};

}  // namespace attnd::client
