#include "client/src/retry.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace attnd::client {
namespace {

// The longest wait before the caller's cancellation and the connection are checked again.
constexpr absl::Duration kStep = absl::Milliseconds(20);

// gRPC's message for a call whose connection closed before a status arrived, usually because of a proxy.
constexpr absl::string_view kStreamRemoved = "Stream removed";

absl::Time EndOf(const RetryOptions& retry, const CallOptions& call, absl::Time start) {
  return std::min(start + retry.max_time, call.deadline);
}

}  // namespace

RetryBudget::RetryBudget(double share, double per_second, std::function<absl::Time()> now)
    : share_(share),
      per_second_(per_second),
      now_(std::move(now)),
      reserve_(per_second * absl::ToDoubleSeconds(kReserveTime)),
      refilled_(now_()) {}

void RetryBudget::Earn() {
  absl::MutexLock lock(&mutex_);
  earned_ = std::min(kMaxEarned, earned_ + share_);
}

bool RetryBudget::Spend() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = now_();
  // The clock may have been set back.
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - refilled_));
  reserve_ = std::min(per_second_ * absl::ToDoubleSeconds(kReserveTime), reserve_ + seconds * per_second_);
  refilled_ = now;
  for (double* const tokens : {&earned_, &reserve_}) {
    // 0.2 is not exact in binary: five of them may add up to slightly less than 1.
    if (*tokens < 1 - 1e-9) continue;
    *tokens = std::max(0.0, *tokens - 1);
    return true;
  }
  return false;
}

Tries::Tries(std::shared_ptr<RetryPolicy> policy, const CallOptions& options)
    : policy_(std::move(policy)),
      cancellation_(options.cancellation),
      start_(policy_->now()),
      end_(EndOf(policy_->options, options, start_)),
      backoff_(policy_->options.initial_backoff) {
  if (policy_->options.enabled) policy_->budget.Earn();
}

bool Tries::Lost(const absl::Status& status) const {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return true;
    case absl::StatusCode::kCancelled:
      return !CallerGone();
    case absl::StatusCode::kUnknown:
      return absl::StartsWith(status.message(), kStreamRemoved);
    default:
      return false;
  }
}

std::optional<absl::Status> Tries::AwaitNext(const absl::Status& status) {
  if (!Again(status)) return Explain(status);
  while (const std::optional<absl::Duration> wait = Wait()) Pause(*policy_->channel, *wait);
  if (over_) return Explain(last_);
  return std::nullopt;
}

bool Tries::Again(const absl::Status& status) {
  ++attempts_;
  // A channel that could not connect is in TRANSIENT_FAILURE; one that lost its connection is idle or connecting.
  if (policy_->channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_TRANSIENT_FAILURE) policy_->NoteConnected();
  if (!Lost(status) || !policy_->options.enabled || !policy_->ever_connected()) return false;
  last_ = status;
  static thread_local std::minstd_rand random{std::random_device()()};
  // Between half the backoff and all of it, so that callers that were refused together do not return together.
  next_ = policy_->now() + backoff_ * std::uniform_real_distribution<>(0.5, 1.0)(random);
  backoff_ = std::min(backoff_ * 2, policy_->options.max_backoff);
  return true;
}

std::optional<absl::Duration> Tries::Wait() {
  const absl::Time now = policy_->now();
  if (CallerGone()) {
    last_ = absl::CancelledError("cancelled by the caller between two attempts");
    over_ = true;
    return std::nullopt;
  }
  if (std::max(now, next_) >= end_) {
    why_ = ", and there is no time for another";
    over_ = true;
    return std::nullopt;
  }
  if (now < next_) return std::min(next_ - now, kStep);
  if (policy_->channel->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_READY) {
    return std::min(end_ - now, kStep);
  }
  if (!policy_->budget.Spend()) {
    why_ = ", and the budget of repeats is used up";
    over_ = true;
  }
  return std::nullopt;
}

absl::Status Tries::Explain(const absl::Status& status) const {
  if (status.ok() || (attempts_ <= 1 && *why_ == '\0')) return status;
  std::string message = absl::StrCat(status.message(), " (attempt ", attempts_, " in ",
                                     absl::FormatDuration(absl::Trunc(policy_->now() - start_, absl::Milliseconds(1))));
  if (!last_.ok() && last_ != status) {
    absl::StrAppend(&message, "; the one before: ", absl::StatusCodeToString(last_.code()), ": ", last_.message());
  }
  absl::StrAppend(&message, why_, ")");
  absl::Status explained(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { explained.SetPayload(url, payload); });
  return explained;
}

void Pause(grpc::Channel& channel, absl::Duration time) {
  channel.WaitForStateChange(channel.GetState(/*try_to_connect=*/false), absl::ToChronoTime(absl::Now() + time));
}

bool WaitUntilConnected(RetryPolicy& policy, const CallOptions& options) {
  if (!policy.options.enabled) return false;
  const absl::Time end = EndOf(policy.options, options, absl::Now());
  while (true) {
    const grpc_connectivity_state state = policy.channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) {
      policy.NoteConnected();
      return true;
    }
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE && !policy.ever_connected()) return false;
    const absl::Time now = absl::Now();
    if (now >= end || (options.cancellation != nullptr && options.cancellation->cancelled())) return false;
    Pause(*policy.channel, std::min(end - now, kStep));
  }
}

}  // namespace attnd::client
