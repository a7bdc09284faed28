// Sessions of a server in this process that keeps nothing: a step's output is its q.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attnd/v1/session.grpc.pb.h"
#include "fake_local_server.h"

namespace attnd::client {

// The answer to a SessionRequest, whose tensors are in it. The log-sum-exp are the first values of q's rows, which have
// kFakeDim.
inline constexpr std::int64_t kFakeDim = 16;
v1::SessionReply FakeSessionAnswer(const v1::SessionRequest& request);

// Over gRPC.
class FakeSessions : public v1::SessionService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::SessionReply, v1::SessionRequest>;
  std::atomic<int> opened{0};
  std::atomic<std::int64_t> max_message_bytes{0};

  grpc::Status Attend(grpc::ServerContext* context, Stream* stream) override;
};

// Over the local socket: has `server` offer sessions, and shared memory for them.
class FakeLocalSessions {
 public:
  explicit FakeLocalSessions(FakeLocalServer& server);
  ~FakeLocalSessions() { server_.Stop(); }
  FakeLocalSessions(const FakeLocalSessions&) = delete;

  // The answer to a message, with what it reads and writes in shared memory.
  v1::SessionReply AnswerOf(const v1::LocalRequest& request);
  bool Answer(const FakeLocalServer::Peer& peer, const v1::LocalRequest& request);
  static bool SendReply(const FakeLocalServer::Peer& peer, const v1::SessionReply& reply);
  static bool SendEnd(const FakeLocalServer::Peer& peer, const v1::LocalSessionEnd& end);
  static bool SendEnd(const FakeLocalServer::Peer& peer, int code, const std::string& message);

  // The steps that came, without their tensors.
  std::vector<v1::SessionStep> steps() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return steps_;
  }
  // Who has opened a session last; null if it is gone.
  FakeLocalServer::Peer opener() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return opener_.lock();
  }
  std::atomic<int> opened{0}, closed{0};

 private:
  FakeLocalServer& server_;
  absl::Mutex mutex_;
  std::vector<v1::SessionStep> steps_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<const shm::UniqueFd> opener_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::client
