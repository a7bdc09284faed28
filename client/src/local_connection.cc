#include "client/src/local_connection.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/src/local_messages.h"

namespace attnd::client {
namespace {

// gRPC's messages.
absl::Status Late() { return absl::DeadlineExceededError("Deadline Exceeded"); }
absl::Status Cancelled() { return absl::CancelledError("CANCELLED"); }

}  // namespace

LocalConnection::Result LocalConnection::Call(const ComputeRequest& request, const Shape& shape,
                                              const WireFields& fields, const CallOptions& options) {
  Result result;
  const auto with = [&result](absl::StatusOr<ComputeReply> reply, bool usable) {
    result.reply = std::move(reply);
    result.usable = usable;
    return std::move(result);
  };
  absl::Duration left = absl::InfiniteDuration();
  LocalSocket::Until until;
  if (options.deadline != absl::InfiniteFuture()) {
    left = options.deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return with(Late(), true);
    until = LocalSocket::Clock::now() + absl::ToChronoNanoseconds(std::min(left, absl::Hours(24 * 365)));
  }
  if (options.cancellation != nullptr && options.cancellation->cancelled()) return with(Cancelled(), true);

  LocalMessage message(request, shape, fields);
  const std::uint64_t id = next_id_++;
  message.Address(id, left);
  if (std::max(message.size(), message.answer_size()) > socket_->offer().max_message_bytes) {
    result.sent = Sent::kTooLarge;
    return with(ComputeReply(), true);
  }
  CancelGuard guard(options.cancellation, *socket_);
  if (const Delivery delivery = socket_->Send(message.parts(), until); delivery != Delivery::kDone) {
    if (guard.End()) return with(Cancelled(), false);
    if (delivery == Delivery::kNotYet) return with(Late(), false);
    result.sent = delivery == Delivery::kTooLarge ? Sent::kTooLarge : Sent::kGone;
    return with(ComputeReply(), result.sent == Sent::kTooLarge);
  }
  const absl::StatusOr<absl::Span<const unsigned char>> datagram = socket_->Receive(until);
  result.silent = socket_->silent();
  // A reply that has arrived counts even if the call was cancelled meanwhile, but then the connection was interrupted
  // and cannot be used again.
  const bool cancelled = guard.End();
  if (!datagram.ok()) return with(cancelled ? Cancelled() : datagram.status(), false);
  const std::optional<LocalAnswer> answer = LocalAnswer::Read(*datagram);
  if (!answer.has_value()) return with(absl::InternalError("the server's datagram is no answer to a call"), false);
  if (answer->id() != id) {
    return with(
        absl::InternalError(absl::StrCat("the server answered call ", answer->id(), ", which is not under way")),
        false);
  }
  return with(answer->Decode(request, shape, fields), !cancelled);
}

}  // namespace attnd::client
