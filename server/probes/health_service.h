// grpc.health.v1.Health.
#pragma once

#include <cstddef>
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

// Answers on gRPC's threads without waiting; a watch holds no thread. It replaces gRPC's own health service, whose
// watches cannot be ended and which reflection does not list. It parses messages itself, so that a lack of memory is an
// error of the call. Thread-safe. Borrows `streams`.
class HealthService final : public HealthServiceBase {
 public:
  // Longest service name that Watch accepts.
  static constexpr std::size_t kMaxNameBytes = 1024;

  explicit HealthService(OpenStreams& streams) : streams_(streams) {}

  // Sets the status of a service, and tells its watchers.
  void Set(const std::string& service, bool serving);

  // Services that are known or watched, and watches that are open.
  struct Use {
    std::size_t services = 0;
    std::size_t watchers = 0;
  };
  Use use() ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  // Sends the status and its changes; if it changes several times while a message is being written, only the last
  // change is sent. When the server stops, the watch ends with UNAVAILABLE, after the status that the stop has set.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // A known service, or an unknown one that is being watched.
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
