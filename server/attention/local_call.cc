#include "server/attention/local_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "memory/no_memory.h"
#include "server/attention/local_answer.h"
#include "server/rpc/deadline.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

// So a request in a datagram cannot exceed the limit on the fields that are not tensors.
static_assert(Limits().max_header_bytes >= static_cast<std::int64_t>(kMaxDatagramBytes));

absl::StatusOr<schedule::Clock::time_point> DeadlineOf(const v1::LocalCall& call) {
  if (!call.has_timeout()) return schedule::Clock::time_point::max();
  return DeadlineAfter(call.timeout());
}

TensorBytes Whole(const std::string& bytes) {
  if (bytes.empty()) return {};
  return {{{reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}}, bytes.size()};
}

}  // namespace

void LocalCall::Start(AttentionEngine& engine, CallGate& gate, Answered answered) {
  answered_ = std::move(answered);
  AttentionEngine::Done done;
  const absl::Status begun = memory::CatchNoMemory([&] {
    if (!gate.Enter()) return StoppingError();
    pass_.reset(&gate);
    ATTND_RETURN_IF_ERROR(Prepare(engine.limits()));
    done = [self = shared_from_this()](absl::StatusOr<AttentionResult> result) { self->End(std::move(result)); };
    return absl::OkStatus();
  });
  if (!begun.ok()) return End(begun);
  engine.ComputeAside((*request_)->call().request(), tensors_, options_, std::move(done), kMaxAnsweredBytes);
}

absl::Status LocalCall::Prepare(const Limits& limits) {
  ATTND_ASSIGN_OR_RETURN(options_.deadline, DeadlineOf((*request_)->call()));
  const v1::ComputeAttentionRequest& request = (*request_)->call().request();
  // ByteSizeLong is needed only if the limit is smaller than a datagram.
  if (limits.max_request_bytes < static_cast<std::int64_t>(kMaxDatagramBytes)) {
    const std::int64_t bytes = static_cast<std::int64_t>(request.ByteSizeLong());
    if (bytes > limits.max_request_bytes) {
      return FieldError(absl::StatusCode::kResourceExhausted, "request",
                        absl::StrCat("at most ", limits.max_request_bytes, " bytes (--max_request_bytes)"),
                        absl::StrCat(bytes));
    }
  }
  tensors_ = {Whole(request.q()), Whole(request.k()), Whole(request.v())};
  return absl::OkStatus();
}

void LocalCall::End(absl::StatusOr<AttentionResult> result) {
  // The request is no longer needed.
  tensors_ = {};
  request_ = nullptr;
  std::string answer;
  absl::Status ended = result.status();
  if (ended.ok()) ended = memory::CatchNoMemoryIn([&] { answer = ResultAnswer(id(), *result); });
  if (ended.ok()) {
    // Held until the result is sent. A result in shared memory has already reached its caller: its reservation ends
    // here, so that the caller's next call can use the bytes.
    if (result->output.size() > 0 || result->log_sum_exp.size() > 0) {
      lease_ = std::move(result->lease);
      lease_.GiveBack(result->request_bytes);
    }
  } else {
    answer = ErrorAnswer(id(), ended);
  }
  result = memory::NoMemoryError();  // frees what is left of the result
  // `answered_` refers to an object that holds this call: clear it to break the cycle.
  const Answered answered = std::exchange(answered_, nullptr);
  answered(std::move(answer), shared_from_this());
}

}  // namespace attnd::server
