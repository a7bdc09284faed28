// Runs gRPC's shutdown on a thread that is started before it is needed.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server.h"

namespace attnd::server {

// grpc::Server::Shutdown blocks until every connection has closed, and the thread that stops the server must end
// streams meanwhile. The thread is started with the server, because at the stop there may be no memory for a thread.
// Thread-safe, except for Start and the destructor.
class Closing {
 public:
  Closing() = default;
  // Ends the thread, after a shutdown that has begun.
  ~Closing();
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;

  // Call once. `server` must outlive this. Errors: RESOURCE_EXHAUSTED if the system has no thread left.
  absl::Status Start(grpc::Server& server);
  void Begin() ABSL_LOCKS_EXCLUDED(mutex_);
  bool done() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks until the shutdown is done. Call after Begin.
  void Await() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run(grpc::Server& server) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable absl::Mutex mutex_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;  // also set if the shutdown is not needed
  bool unneeded_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
