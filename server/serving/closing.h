// gRPC's shutdown, on a thread that is there before it is needed.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"

namespace attnd::server {

// grpc::Server::Shutdown blocks until every connection has closed, and whoever stops the server has streams to end
// meanwhile. The thread is started with the server: when that stops there may be no memory for one. Thread-safe but for
// Start and the destruction.
class Closing {
 public:
  Closing() = default;
  // Ends the thread; waits for a shutdown that has begun.
  ~Closing();
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;

  // Once. `server` must outlive this. Errors: RESOURCE_EXHAUSTED if the system has no thread left.
  absl::Status Start(grpc::Server& server);
  void Begin() ABSL_LOCKS_EXCLUDED(mutex_);
  bool done() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Until it is done; after Begin.
  void Await() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run(grpc::Server& server) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable absl::Mutex mutex_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;  // or not needed any more
  bool unneeded_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
