// grpc.health.v1.Health.
#pragma once

#include <map>
#include <string>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/probes/open_streams.h"

namespace attnd::server {

// Answers on gRPC's threads and waits for nothing; a watch holds no thread. gRPC's own service gives no way to end its
// watches, and reflection does not know it. Thread-safe. Borrows `streams`.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Longest name of a service that can be asked for.
  static constexpr std::size_t kMaxNameBytes = 1024;

  explicit HealthService(OpenStreams& streams) : streams_(streams) {}

  // Sets what is said of a service, and tells those who watch it.
  void Set(const std::string& service, bool serving);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::health::v1::HealthListRequest* request,
                                 grpc::health::v1::HealthListResponse* response) override;
  // Sends the newest status; of several changes while an answer is under way the last alone. When the server stops the
  // watch ends with UNAVAILABLE, after the status that the stop set.
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context, const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // What is known of a name, or asked about one that is not.
  struct Service {
    Status status = grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
    std::unordered_set<Watcher*> watchers;
  };

  void Subscribe(Watcher& watcher);
  void Unsubscribe(Watcher& watcher);

  OpenStreams& streams_;
  absl::Mutex mutex_;
  std::map<std::string, Service> services_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
