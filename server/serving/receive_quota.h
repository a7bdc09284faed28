// Bounds the memory of messages that gRPC receives, by what calls leave of the process's memory.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/resource_quota.h"

namespace attnd::server {

// What gRPC may hold of messages while calls hold `used` of `total` bytes (--max_inflight_bytes), `received` of them
// messages that have arrived in full: twice the total, less what calls hold beside messages. So both together stay near
// twice the total, which the default of the total leaves room for (fitted_limits.h); gRPC's buffers take up to a fifth
// more than it counts.
std::int64_t ReceiveBytes(std::int64_t total, std::int64_t used, std::int64_t received);

// Keeps gRPC's resource quota to that, ten times a second, until it is destroyed. Beyond the quota gRPC closes
// connections, whoever's they are: the last resort.
class ReceiveQuota {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(100);

  struct Held {
    std::int64_t used;      // by calls
    std::int64_t received;  // of that: messages
  };
  // `held` is called on the thread; what it refers to must outlive this. Where there is no thread to be had, the quota
  // stays as if calls held all they may, and nothing of that were messages.
  ReceiveQuota(std::int64_t total, std::function<Held()> held);
  ~ReceiveQuota();
  ReceiveQuota(const ReceiveQuota&) = delete;
  ReceiveQuota& operator=(const ReceiveQuota&) = delete;

  const grpc::ResourceQuota& quota() const { return quota_; }

 private:
  void Run();
  void Resize(std::int64_t bytes);

  const std::int64_t total_;
  const std::function<Held()> held_;
  grpc::ResourceQuota quota_{"attnd"};
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attnd::server
