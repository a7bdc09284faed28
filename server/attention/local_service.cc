#include "server/attention/local_service.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "attnd/v1/local.pb.h"
#include "memory/no_memory.h"
#include "server/attention/local_answer.h"
#include "server/attention/local_call.h"
#include "server/attention/local_request.h"
#include "server/rpc/on_arena.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

absl::Status CheckHello(const v1::LocalHello& hello, bool enabled) {
  if (!enabled) return absl::UnimplementedError("this server takes no local calls (--nolocal_calls)");
  if (hello.version() == kLocalVersion) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("version: expected ", kLocalVersion, ", got ", hello.version()));
}

// Take and Close are called on the listener's thread; calls end on any thread.
class Caller final : public LocalConnection, public std::enable_shared_from_this<Caller> {
 public:
  Caller(AttentionEngine& engine, CallGate& gate, bool enabled, LocalSessions* sessions, const Peer& peer,
         std::shared_ptr<DatagramSink> sink)
      : engine_(engine),
        gate_(gate),
        enabled_(enabled),
        sessions_(sessions),
        peer_(peer),
        account_(engine.ledger().AccountOf(UserName(peer))),
        sink_(std::move(sink)) {}

  absl::Status Take(absl::string_view datagram) override {
    if (const std::optional<absl::string_view> message = SessionMessageIn(datagram)) return TakeOfSession(*message);
    auto request = std::make_unique<OnArena<v1::LocalRequest>>();
    if (!(*request)->ParseFromArray(datagram.data(), static_cast<int>(datagram.size()))) {
      return TakeRefused(datagram);
    }
    switch ((*request)->kind_case()) {
      case v1::LocalRequest::kHello:
        return Greet((*request)->hello());
      case v1::LocalRequest::kCall:
        return Begin(std::move(request));
      case v1::LocalRequest::kCancel:
        return Cancel((*request)->cancel().id());
      case v1::LocalRequest::kSession:
        return TakeOfSession((*request)->session().SerializeAsString());
      case v1::LocalRequest::kSessionClose:
        return CloseSession();
      case v1::LocalRequest::KIND_NOT_SET:
        break;
    }
    return absl::InvalidArgumentError("a message of no known kind");
  }

  void Close() override {
    std::map<std::uint64_t, std::shared_ptr<LocalCall>> calls;
    {
      absl::MutexLock lock(&mutex_);
      closed_ = true;
      calls.swap(calls_);
    }
    for (const auto& [id, call] : calls) call->Cancel();
    if (session_ != nullptr) session_->Drop();
  }

 private:
  absl::Status TakeOfSession(absl::string_view message) {
    if (!takes_calls_ || sessions_ == nullptr) return absl::InvalidArgumentError("a session without a welcome");
    if (session_closed_) return absl::InvalidArgumentError("a message of a session that was closed");
    if (!std::exchange(had_session_, true)) session_ = sessions_->Begin(peer_, sink_);
    if (session_ != nullptr) session_->Take(message);
    return absl::OkStatus();
  }

  absl::Status CloseSession() {
    if (!had_session_ || session_closed_) return absl::InvalidArgumentError("a close without a session");
    session_closed_ = true;
    if (session_ != nullptr) session_->Close();
    return absl::OkStatus();
  }

  absl::Status TakeRefused(absl::string_view datagram) {
    const std::optional<RefusedCall> refused = ParseRefusedCall(datagram, engine_.limits().max_header_bytes);
    if (!refused.has_value()) return absl::InvalidArgumentError("a datagram that is no message of this protocol");
    if (absl::Status status = CheckNewId(refused->id); !status.ok()) return status;
    sink_->Send(ErrorAnswer(refused->id, refused->status), nullptr);
    return absl::OkStatus();
  }

  // Checks that a call may use this id now. Only this thread adds calls.
  absl::Status CheckNewId(std::uint64_t id) {
    if (!takes_calls_) return absl::InvalidArgumentError("a call without a welcome");
    absl::MutexLock lock(&mutex_);
    if (!calls_.contains(id)) return absl::OkStatus();
    return absl::InvalidArgumentError("the id of a call that is under way");
  }

  absl::Status Greet(const v1::LocalHello& hello) {
    if (greeted_) return absl::InvalidArgumentError("a second hello");
    greeted_ = true;
    const absl::Status status = CheckHello(hello, enabled_);
    takes_calls_ = status.ok();
    sink_->Send(Welcome(status, sessions_ != nullptr), nullptr);
    return absl::OkStatus();
  }

  absl::Status Begin(std::unique_ptr<OnArena<v1::LocalRequest>> request) {
    const std::uint64_t id = (*request)->call().id();
    if (absl::Status status = CheckNewId(id); !status.ok()) return status;
    std::shared_ptr<LocalCall> call;
    LocalCall::Answered answered;
    const absl::Status made = memory::CatchNoMemory([&] {
      call = std::make_shared<LocalCall>(std::move(request), account_);
      answered = [self = shared_from_this()](std::string answer, std::shared_ptr<LocalCall> ended) {
        self->Answer(std::move(answer), std::move(ended));
      };
      return Add(call) ? absl::OkStatus() : TooMany();
    });
    if (made.ok()) {
      call->Start(engine_, gate_, std::move(answered));
    } else {
      sink_->Send(ErrorAnswer(id, made), nullptr);
    }
    return absl::OkStatus();
  }

  // Returns false if kMaxLocalCalls calls are under way.
  bool Add(const std::shared_ptr<LocalCall>& call) {
    absl::MutexLock lock(&mutex_);
    if (calls_.size() >= kMaxLocalCalls) return false;
    return calls_.emplace(call->id(), call).second;
  }

  static absl::Status TooMany() {
    return FieldError(absl::StatusCode::kResourceExhausted, "id",
                      absl::StrCat("at most ", kMaxLocalCalls, " calls under way on a connection"), "another");
  }

  absl::Status Cancel(std::uint64_t id) {
    if (!takes_calls_) return absl::InvalidArgumentError("a cancellation without a welcome");
    std::shared_ptr<LocalCall> call;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = calls_.find(id);
      if (found == calls_.end()) return absl::OkStatus();
      call = found->second;
    }
    call->Cancel();
    return absl::OkStatus();
  }

  void Answer(std::string answer, std::shared_ptr<LocalCall> call) {
    {
      // Removed before its answer is sent: the caller may reuse the id as soon as it has read the answer.
      absl::MutexLock lock(&mutex_);
      if (closed_) return;
      calls_.erase(call->id());
    }
    sink_->Send(std::move(answer), std::move(call));
  }

  AttentionEngine& engine_;
  CallGate& gate_;
  const bool enabled_;
  LocalSessions* const sessions_;
  const Peer peer_;
  const std::shared_ptr<memory::Account> account_;  // one for all connections of a user
  const std::shared_ptr<DatagramSink> sink_;
  // Used only by the listener's thread.
  bool greeted_ = false;
  bool takes_calls_ = false;
  bool had_session_ = false;
  bool session_closed_ = false;
  std::shared_ptr<LocalSession> session_;  // null before the first session message, and if the session could not begin

  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::uint64_t, std::shared_ptr<LocalCall>> calls_ ABSL_GUARDED_BY(mutex_);  // not yet answered
};

}  // namespace

std::shared_ptr<LocalConnection> LocalService::Connect(const Peer& peer, std::shared_ptr<DatagramSink> sink) {
  return std::make_shared<Caller>(engine_, gate_, enabled_, sessions_, peer, std::move(sink));
}

}  // namespace attnd::server
