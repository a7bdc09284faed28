// Calls in tests that end, whatever their server does.
#pragma once

#include <chrono>
#include <future>
#include <utility>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::client {

// What `call` returns, which runs on a thread of its own. If it takes more than a sixth of test::Patience(), that
// is a failure, and `end` ends what it waits for.
template <typename Call, typename End>
auto Bounded(const Call& call, const End& end) {
  auto result = std::async(std::launch::async, call);
  if (result.wait_for(absl::ToChronoMilliseconds(test::Patience() / 6)) != std::future_status::ready) {
    ADD_FAILURE() << "the call has not ended";
    end();
  }
  return result.get();
}

// The value of a future of absl::StatusOr; DEADLINE_EXCEEDED, and a failure, if it is not ready in that time.
template <typename Future>
auto Get(Future&& future) -> decltype(future.get()) {
  if (future.wait_for(absl::ToChronoMilliseconds(test::Patience() / 6)) == std::future_status::ready) {
    return future.get();
  }
  ADD_FAILURE() << "the future is not ready";
  return absl::DeadlineExceededError("the future is not ready");
}

}  // namespace attnd::client
