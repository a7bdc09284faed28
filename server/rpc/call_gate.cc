#include "server/rpc/call_gate.h"

namespace attnd::server {

bool CallGate::Enter() {
  absl::MutexLock lock(&mutex_);
  if (closed_) return false;
  ++inside_;
  return true;
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

std::int64_t CallGate::AwaitEmpty(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto empty = +[](std::int64_t* inside) { return *inside == 0; };
  mutex_.AwaitWithDeadline(absl::Condition(empty, &inside_), deadline);
  return inside_;
}

}  // namespace attnd::server
