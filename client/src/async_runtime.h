// Threads that complete asynchronous calls.
#pragma once

#include <grpcpp/completion_queue.h>

#include <functional>

#include "absl/time/time.h"

namespace attnd::client {

// One per process, started on first use and never stopped: so a call may outlive the client that made it, and a client
// may be destroyed on the thread that completes its last call. Thread-safe.
class AsyncRuntime {
 public:
  static AsyncRuntime& Get();

  // A tag for queue(): Run is called once, on a thread of the runtime, when the event occurs. `ok` is as in
  // CompletionQueue::Next.
  class Event {
   public:
    virtual ~Event() = default;
    virtual void Run(bool ok) = 0;
  };

  // The completion queue of asynchronous calls. Every tag must be an Event*, which must live until it has run.
  grpc::CompletionQueue* queue() { return &queue_; }

  // Runs `task` soon on a thread of the runtime. May be called from inside gRPC.
  void Post(std::function<void()> task);

  // Runs `task` on a thread of the runtime after about `delay`. May be called from inside gRPC.
  void PostAfter(absl::Duration delay, std::function<void()> task);

 private:
  AsyncRuntime();
  void Work();

  grpc::CompletionQueue queue_;
};

}  // namespace attnd::client
