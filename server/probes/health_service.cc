#include "server/probes/health_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext& context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

// One Watch. The locks of OpenStreams and of the service are taken before its own.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse>, public OpenStream {
 public:
  Watcher(HealthService& service, grpc::CallbackServerContext& context, std::string name)
      : service_(service), context_(context), name_(std::move(name)) {
    if (name_.size() > kMaxNameBytes) {
      Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          absl::StrCat("service: expected at most ", kMaxNameBytes, " bytes, got ", name_.size())));
      finished_ = true;
      return;
    }
    subscribed_ = true;
    service_.Subscribe(*this);
    service_.streams_.Add(this);
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
  void GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || writing_) return;
    if (unsent_ && !context_.IsCancelled()) {
      unsent_ = false;
      writing_ = true;
      response_.set_status(newest_);
      StartWrite(&response_);
    } else if (ending_) {
      finished_ = true;
      Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping"));
    }
  }

  HealthService& service_;
  grpc::CallbackServerContext& context_;
  const std::string name_;
  bool subscribed_ = false;
  HealthCheckResponse response_;  // the write's, while one is under way
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

void HealthService::Subscribe(Watcher& watcher) {
  absl::MutexLock lock(&mutex_);
  Service& entry = services_[watcher.name()];
  entry.watchers.insert(&watcher);
  watcher.Tell(entry.status);
}

void HealthService::Unsubscribe(Watcher& watcher) {
  absl::MutexLock lock(&mutex_);
  const auto entry = services_.find(watcher.name());
  entry->second.watchers.erase(&watcher);
  const bool known = entry->second.status != HealthCheckResponse::SERVICE_UNKNOWN;
  if (!known && entry->second.watchers.empty()) services_.erase(entry);
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    if (const auto entry = services_.find(request->service()); entry != services_.end()) {
      response->set_status(entry->second.status);
    } else {
      response->set_status(HealthCheckResponse::SERVICE_UNKNOWN);
    }
  }
  if (response->status() != HealthCheckResponse::SERVICE_UNKNOWN) return FinishNow(*context, grpc::Status::OK);
  return FinishNow(*context, grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service"));
}

grpc::ServerUnaryReactor* HealthService::List(grpc::CallbackServerContext* context,
                                              const grpc::health::v1::HealthListRequest*,
                                              grpc::health::v1::HealthListResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, service] : services_) {
      if (service.status == HealthCheckResponse::SERVICE_UNKNOWN) continue;
      (*response->mutable_statuses())[name].set_status(service.status);
    }
  }
  return FinishNow(*context, grpc::Status::OK);
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(grpc::CallbackServerContext* context,
                                                                    const HealthCheckRequest* request) {
  return new Watcher(*this, *context, request->service());
}

}  // namespace attnd::server
