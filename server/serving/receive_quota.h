// Bounds the memory of the messages that gRPC receives, by what calls leave of the process's memory.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/resource_quota.h"

namespace attnd::server {

// How many bytes of messages gRPC may hold while calls hold `used` of `total` bytes (--max_inflight_bytes), of which
// `received` are messages that have arrived completely. It is twice the total, less what calls hold besides messages.
// So both together stay near twice the total, for which the default of the total leaves room (fitted_limits.h). gRPC's
// buffers take up to a fifth more than it counts.
std::int64_t ReceiveBytes(std::int64_t total, std::int64_t used, std::int64_t received);

// Sets gRPC's resource quota to that, ten times a second, until it is destroyed. If the quota is exceeded, gRPC closes
// connections of any client, so this is the last resort.
class ReceiveQuota {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(100);

  struct Held {
    std::int64_t used;      // bytes that calls hold
    std::int64_t received;  // of these, bytes of messages
  };
  // `held` is called on this object's thread; what it refers to must outlive this. If the thread cannot be started, the
  // quota stays at `total`, as if calls held all they may and none of it were messages. `resized`, for tests, receives
  // each size that the quota is set to.
  ReceiveQuota(std::int64_t total, std::function<Held()> held, std::function<void(std::int64_t)> resized = nullptr);
  ~ReceiveQuota();
  ReceiveQuota(const ReceiveQuota&) = delete;
  ReceiveQuota& operator=(const ReceiveQuota&) = delete;

  const grpc::ResourceQuota& quota() const { return quota_; }

 private:
  void Run();
  void Resize(std::int64_t bytes);

  const std::int64_t total_;
  const std::function<Held()> held_;
  const std::function<void(std::int64_t)> resized_;
  grpc::ResourceQuota quota_{"attnd"};
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
