#include "server/probes/health_service.h"

#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "server/probes/guarded.h"

namespace attnd::server {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext& context, grpc::Status status) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

template <typename Message>
grpc::Status Parse(const grpc::ByteBuffer& bytes, Message& message) {
  grpc::ByteBuffer own = bytes;  // parsing clears its buffer
  return grpc::SerializationTraits<Message>::Deserialize(&own, &message);
}

template <typename Message>
grpc::Status Serialize(const Message& message, grpc::ByteBuffer& bytes) {
  bool own = false;
  bytes.Clear();
  return grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own);
}

grpc::Status Stopping() {
  return Guarded([] { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping"); });
}

}  // namespace

// One call of Watch. Lock order: the locks of OpenStreams and of the service come before its own.
class HealthService::Watcher final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public OpenStream {
 public:
  Watcher(HealthService& service, grpc::CallbackServerContext& context) : service_(service), context_(context) {}

  // Call once, before gRPC has the reactor. Never throws.
  void Start(const grpc::ByteBuffer& request) {
    grpc::Status status = Guarded([&] { return Begin(request); });
    if (status.ok()) return;
    absl::MutexLock lock(&mutex_);
    finished_ = true;
    Finish(std::move(status));
  }

  const std::string& name() const { return name_; }

  void Tell(Status status) {
    absl::MutexLock lock(&mutex_);
    newest_ = status;
    unsent_ = true;
    GoOn();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    ending_ = ending_ || !ok;
    GoOn();
  }

  void OnCancel() override { End(); }

  void End() override {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    GoOn();
  }

  void Cancel() override { context_.TryCancel(); }

  void OnDone() override {
    if (subscribed_) {
      service_.streams_.Remove(this);
      service_.Unsubscribe(*this);
    }
    delete this;
  }

 private:
  grpc::Status Begin(const grpc::ByteBuffer& request) {
    HealthCheckRequest parsed;
    if (grpc::Status status = Parse(request, parsed); !status.ok()) return status;
    if (parsed.service().size() > kMaxNameBytes) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, absl::StrCat("service: expected at most ", kMaxNameBytes,
                                                                           " bytes, got ", parsed.service().size()));
    }
    name_ = std::move(*parsed.mutable_service());
    service_.Subscribe(*this);
    absl::Cleanup unsubscribe = [this] { service_.Unsubscribe(*this); };
    service_.streams_.Add(this);
    std::move(unsubscribe).Cancel();
    subscribed_ = true;
    return grpc::Status::OK;
  }

  void GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || writing_) return;
    if (unsent_ && !context_.IsCancelled()) {
      unsent_ = false;
      writing_ = true;
      HealthCheckResponse response;
      response.set_status(newest_);
      // Does not allocate: two bytes are stored in the slice object itself.
      static_cast<void>(Serialize(response, response_));
      StartWrite(&response_);
    } else if (ending_) {
      finished_ = true;
      Finish(Stopping());
    }
  }

  HealthService& service_;
  grpc::CallbackServerContext& context_;
  std::string name_;
  bool subscribed_ = false;
  grpc::ByteBuffer response_;  // used by the write that is under way
  absl::Mutex mutex_;
  Status newest_ ABSL_GUARDED_BY(mutex_) = HealthCheckResponse::SERVICE_UNKNOWN;
  bool unsent_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

void HealthService::Set(const std::string& service, bool serving) {
  absl::MutexLock lock(&mutex_);
  Service& entry = services_[service];
  const Status status = serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  if (entry.status == status) return;
  entry.status = status;
  for (Watcher* const watcher : entry.watchers) watcher->Tell(status);
}

HealthService::Use HealthService::use() {
  absl::MutexLock lock(&mutex_);
  Use use{services_.size(), 0};
  for (const auto& [name, service] : services_) use.watchers += service.watchers.size();
  return use;
}

void HealthService::Subscribe(Watcher& watcher) {
  absl::MutexLock lock(&mutex_);
  const auto entry = services_.try_emplace(watcher.name()).first;
  absl::Cleanup forget = [this, entry]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { ForgetIfIdle(entry); };
  entry->second.watchers.insert(&watcher);
  std::move(forget).Cancel();
  watcher.Tell(entry->second.status);
}

void HealthService::Unsubscribe(Watcher& watcher) {
  absl::MutexLock lock(&mutex_);
  const auto entry = services_.find(watcher.name());
  entry->second.watchers.erase(&watcher);
  ForgetIfIdle(entry);
}

void HealthService::ForgetIfIdle(Services::iterator entry) {
  const bool known = entry->second.status != HealthCheckResponse::SERVICE_UNKNOWN;
  if (!known && entry->second.watchers.empty()) services_.erase(entry);
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  return FinishNow(*context, Guarded([&] {
    HealthCheckRequest parsed;
    if (grpc::Status status = Parse(*request, parsed); !status.ok()) return status;
    HealthCheckResponse answer;
    answer.set_status(StatusOf(parsed.service()));
    if (answer.status() != HealthCheckResponse::SERVICE_UNKNOWN) return Serialize(answer, *response);
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service");
  }));
}

HealthService::Status HealthService::StatusOf(const std::string& service) {
  absl::MutexLock lock(&mutex_);
  const auto entry = services_.find(service);
  return entry == services_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : entry->second.status;
}

grpc::ServerUnaryReactor* HealthService::List(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  return FinishNow(*context, Guarded([&] {
    grpc::health::v1::HealthListRequest parsed;
    if (grpc::Status status = Parse(*request, parsed); !status.ok()) return status;
    grpc::health::v1::HealthListResponse answer;
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, service] : services_) {
      if (service.status == HealthCheckResponse::SERVICE_UNKNOWN) continue;
      (*answer.mutable_statuses())[name].set_status(service.status);
    }
    return Serialize(answer, *response);
  }));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* HealthService::Watch(grpc::CallbackServerContext* context,
                                                                 const grpc::ByteBuffer* request) {
  // If there is no memory for a watcher, gRPC answers UNIMPLEMENTED: without a reactor there is no way to set a status.
  auto* const watcher = new (std::nothrow) Watcher(*this, *context);
  if (watcher != nullptr) watcher->Start(*request);
  return watcher;
}

}  // namespace attnd::server
