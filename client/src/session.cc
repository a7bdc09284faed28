#include "client/src/session.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/error_detail.h"
#include "client/src/process.h"
#include "client/src/session_messages.h"

namespace attnd::client {
namespace {

// Time after a step's timeout until its session is given up; also the time limit of Close.
constexpr absl::Duration kGrace = absl::Seconds(5);

class OpenedSession final : public Session {
 public:
  OpenedSession(std::shared_ptr<SessionStream> stream, std::vector<SessionLayer> layers, SessionFacts facts)
      : layers_(std::move(layers)), facts_(std::move(facts)), stream_(std::move(stream)) {}

  const SessionFacts& facts() const override { return facts_; }

  absl::StatusOr<StepReply> Step(const StepRequest& request) override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    if (request.layer < 0 || request.layer >= static_cast<std::int64_t>(layers_.size())) {
      return ErrorWithDetail(
          absl::StatusCode::kInvalidArgument,
          {"layer", absl::StrCat("0 to ", static_cast<std::int64_t>(layers_.size()) - 1), absl::StrCat(request.layer)});
    }
    absl::MutexLock lock(&mutex_);
    if (!stream_->ended().ok()) return stream_->ended();
    const absl::StatusOr<StepSizes> sizes = SizesOf(request, layers_[static_cast<std::size_t>(request.layer)]);
    if (!sizes.ok()) return sizes.status();
    // The server enforces the step's timeout. This deadline is for a server that does not answer any more.
    stream_->SetDeadline(absl::Now() + std::max(request.timeout, absl::ZeroDuration()) + kGrace);
    absl::StatusOr<SessionAnswer> answer = Ask(request, *sizes);
    stream_->SetDeadline(absl::InfiniteFuture());
    if (!answer.ok()) return answer.status();
    if (!answer->status.ok()) return answer->status;
    ++next_step_;
    if (auto s = FitReply(request, *sizes, answer->reply); !s.ok()) return s;
    return std::move(answer->reply);
  }

  std::optional<absl::Duration> going_away() const override {
    absl::MutexLock lock(&mutex_);
    return going_away_;
  }

  absl::Status Close() override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    absl::MutexLock lock(&mutex_);
    if (!stream_->ended().ok()) return absl::OkStatus();
    stream_->SetDeadline(absl::Now() + kGrace);
    return stream_->Close();
  }

 private:
  // Sends the next step and returns the server's answer. Any error ends the stream, except when the step was not sent.
  absl::StatusOr<SessionAnswer> Ask(const StepRequest& request, const StepSizes& sizes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (auto s = stream_->SendStep(request, sizes, next_step_); !s.ok()) return s;
    for (;;) {
      absl::StatusOr<SessionAnswer> answer = stream_->Receive();
      if (answer.ok() && answer->going_away.has_value()) {
        going_away_ = answer->going_away;
        continue;
      }
      if (answer.ok() && answer->step != next_step_) {
        answer = absl::InternalError("the server's reply is not an answer to the step: it is to another one");
      }
      if (!answer.ok() && stream_->ended().ok()) stream_->End(answer.status());
      return answer;
    }
  }

  const std::vector<SessionLayer> layers_;
  const SessionFacts facts_;
  mutable absl::Mutex mutex_;
  const std::shared_ptr<SessionStream> stream_;
  std::uint64_t next_step_ ABSL_GUARDED_BY(mutex_) = 1;
  std::optional<absl::Duration> going_away_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> OpenSession(std::shared_ptr<SessionStream> stream,
                                                     const SessionRequest& request, absl::Time deadline) {
  stream->SetDeadline(deadline);
  if (auto s = stream->SendOpening(request); !s.ok()) return s;
  absl::StatusOr<SessionAnswer> answer = stream->Receive();
  if (!answer.ok()) return answer.status();
  if (!answer->opened.has_value()) {
    return absl::InternalError("the server's reply is not an answer to the opening of a session");
  }
  stream->SetDeadline(absl::InfiniteFuture());
  answer->opened->transport = stream->transport();
  return std::unique_ptr<Session>(
      std::make_unique<OpenedSession>(std::move(stream), request.layers, *std::move(answer->opened)));
}

}  // namespace attnd::client
