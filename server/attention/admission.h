// Bounds the memory of the calls in flight: beyond it a call is refused at once instead of all of them suffering.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "memory/budget.h"

namespace attnd::server {

// The budget of --max_inflight_bytes. Thread-safe; its leases may outlive it.
class Admission {
 public:
  explicit Admission(std::int64_t max_inflight_bytes) : budget_(max_inflight_bytes) {}

  // The lease of `bytes` >= 0, which an admitted call holds until its result is sent. Errors: RESOURCE_EXHAUSTED,
  // naming the limit.
  absl::StatusOr<memory::Budget::Lease> Admit(std::int64_t bytes);

  // As memory::Budget has them.
  std::int64_t TakePeakBytes() { return budget_.TakePeakBytes(); }
  std::int64_t inflight_bytes() const { return budget_.used_bytes(); }

 private:
  memory::Budget budget_;
};

}  // namespace attnd::server
