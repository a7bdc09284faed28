// grpc.health.v1.Health.
#pragma once

#include <map>
#include <string>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/probes/open_streams.h"

namespace attnd::server {

using HealthServiceBase =
    grpc::health::v1::Health::WithRawCallbackMethod_Check<grpc::health::v1::Health::WithRawCallbackMethod_List<
        grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>>>;

// Answers on gRPC's threads and waits for nothing; a watch holds no thread. gRPC's own service gives no way to end its
// watches, and reflection does not know it. Messages are parsed here, where a lack of memory is an error of the call.
// Thread-safe. Borrows `streams`.
class HealthService final : public HealthServiceBase {
 public:
  // Longest name of a service that can be asked for.
  static constexpr std::size_t kMaxNameBytes = 1024;

  explicit HealthService(OpenStreams& streams) : streams_(streams) {}

  // Sets what is said of a service, and tells those who watch it.
  void Set(const std::string& service, bool serving);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  // Sends the newest status; of several changes while an answer is under way the last alone. When the server stops the
  // watch ends with UNAVAILABLE, after the status that the stop set.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // What is known of a name, or asked about one that is not.
  struct Service {
    Status status = grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
    std::unordered_set<Watcher*> watchers;
  };

  using Services = std::map<std::string, Service>;

  Status StatusOf(const std::string& service) ABSL_LOCKS_EXCLUDED(mutex_);
  void Subscribe(Watcher& watcher);
  void Unsubscribe(Watcher& watcher);

  void ForgetIfIdle(Services::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  OpenStreams& streams_;
  absl::Mutex mutex_;
  Services services_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
