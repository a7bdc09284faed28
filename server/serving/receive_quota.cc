#include "server/serving/receive_quota.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <system_error>
#include <utility>

#include "spdlog/spdlog.h"

namespace attnd::server {

std::int64_t ReceiveBytes(std::int64_t total, std::int64_t used, std::int64_t received) {
  const std::int64_t beside_messages = std::clamp<std::int64_t>(used - received, 0, total);
  const std::int64_t left = total - beside_messages;
  return left > std::numeric_limits<std::int64_t>::max() - total ? std::numeric_limits<std::int64_t>::max()
                                                                 : total + left;
}

ReceiveQuota::ReceiveQuota(std::int64_t total, std::function<Held()> held, std::function<void(std::int64_t)> resized)
    : total_(total), held_(std::move(held)), resized_(std::move(resized)) {
  Resize(ReceiveBytes(total_, total_, 0));
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error& error) {
    spdlog::warn("gRPC's quota does not follow what calls hold: {}", error.what());
  }
}

ReceiveQuota::~ReceiveQuota() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

void ReceiveQuota::Resize(std::int64_t bytes) {
  quota_.Resize(static_cast<std::size_t>(bytes));
  if (resized_ != nullptr) resized_(bytes);
}

void ReceiveQuota::Run() {
  std::int64_t set = 0;
  while (true) {
    const Held held = held_();
    const std::int64_t wanted = ReceiveBytes(total_, held.used, held.received);
    if (wanted != set) Resize(set = wanted);
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&ending_), kInterval)) return;
  }
}

}  // namespace attnd::server
