// Where a local connection's answers go in tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attention/held_kernel.h"
#include "attnd/v1/local.pb.h"
#include "gtest/gtest.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// Keeps what is sent, with what is held, until it is taken. Thread-safe.
class TestSink final : public DatagramSink {
 public:
  void Pause() override {}
  void Resume() override {}
  void Send(std::string datagram, std::shared_ptr<const void> held) override {
    v1::LocalReply reply;
    EXPECT_TRUE(reply.ParseFromString(datagram));
    EXPECT_LE(datagram.size(), kMaxDatagramBytes);
    absl::MutexLock lock(&mutex_);
    sent_.emplace_back(std::move(reply), std::move(held));
  }

  std::size_t size() const {
    absl::MutexLock lock(&mutex_);
    return sent_.size();
  }

  // The next reply, once it is there, and what is held for it.
  std::pair<v1::LocalReply, std::shared_ptr<const void>> Take() {
    absl::MutexLock lock(&mutex_);
    const auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !sent_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&any), kPatience)) {
      ADD_FAILURE() << "no reply";
      return {};
    }
    auto first = std::move(sent_.front());
    sent_.erase(sent_.begin());
    return first;
  }
  v1::LocalAnswer TakeAnswer() { return Take().first.answer(); }

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::pair<v1::LocalReply, std::shared_ptr<const void>>> sent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace attnd::server
