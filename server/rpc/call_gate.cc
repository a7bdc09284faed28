#include "server/rpc/call_gate.h"

namespace attnd::server {

bool CallGate::Enter() {
  absl::MutexLock lock(&mutex_);
  if (closed_) return false;
  ++inside_;
  return true;
}

void CallGate::EnterMore() {
  absl::MutexLock lock(&mutex_);
  ++inside_;
}

void CallGate::Leave() {
  absl::MutexLock lock(&mutex_);
  --inside_;
}

std::int64_t CallGate::inside() const {
  absl::MutexLock lock(&mutex_);
  return inside_;
}

void CallGate::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

}  // namespace attnd::server
