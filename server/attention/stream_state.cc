#include "server/attention/stream_state.h"

#include "memory/no_memory.h"

namespace attnd::server {
namespace {

std::int64_t BytesOf(const StreamState::Piece& piece) {
  return piece.message_bytes + piece.result_bytes + kPieceOverheadBytes;
}

}  // namespace

bool StreamState::Fits(const Piece& piece) const {
  return held_bytes_ == 0 || BytesOf(piece) <= window_bytes_ - held_bytes_;
}

StreamState::Step StreamState::Next() {
  Step step;
  if (finished_) return step;
  if (!failure_.ok() && !given_up_) {
    step.give_up = given_up_ = true;
    for (const Answer& answer : answers_) {
      held_.erase(answer.id);
      held_bytes_ -= answer.bytes;
    }
    answers_.clear();
    if (waiting_.has_value()) {
      held_.erase(waiting_->id);
      rooms_.pop_front();
    }
    waiting_.reset();
  }
  if (!writing_ && !answers_.empty()) {
    step.write = answers_.front().id;
    written_bytes_ = answers_.front().bytes;
    writing_ = true;
    held_.erase(*step.write);
    answers_.pop_front();
  }
  if (waiting_.has_value() && Fits(*waiting_)) {
    step.compute = waiting_->id;
    held_[waiting_->id] = BytesOf(*waiting_);
    held_bytes_ += BytesOf(*waiting_);
    ++computing_;
    waiting_.reset();
  }
  const bool may_read = !all_read_ && failure_.ok();
  if (may_read && !reading_ && !waiting_.has_value() && held_bytes_ < window_bytes_) step.read = reading_ = true;
  const bool nothing_to_come = !may_read && (!reading_ || ending_) && !waiting_.has_value() && computing_ == 0 &&
                               answers_.empty() && steps_ == 0;
  // Finish the stream together with the last write: one transport message fewer.
  if (nothing_to_come && !step.give_up && (step.write.has_value() || !writing_)) step.finish = finished_ = true;
  if (step.anything() && !step.finish) ++steps_;
  return step;
}

StreamState::Arrival StreamState::Arrived(const Piece& piece) {
  std::list<Answer> room(1);
  const bool over = finished_ || !failure_.ok();
  const bool is_new = !over && held_.emplace(piece.id, 0).second;
  reading_ = false;  // nothing below allocates
  if (over) return Arrival::kOver;
  if (!is_new) return Arrival::kIdInUse;
  rooms_.splice(rooms_.end(), room);
  waiting_ = piece;
  return Arrival::kTaken;
}

void StreamState::AllRead() {
  reading_ = false;
  all_read_ = true;
}

void StreamState::ReadFailed(const absl::Status& status) {
  reading_ = false;
  Fail(status);
}

bool StreamState::Computed(std::uint64_t id, std::int64_t answer_bytes) {
  --computing_;
  const auto held = held_.find(id);
  held_bytes_ -= held->second;
  if (!failure_.ok()) {
    held_.erase(held);
    rooms_.pop_front();
    return false;
  }
  held->second = answer_bytes;
  held_bytes_ += answer_bytes;
  rooms_.front() = {id, answer_bytes};
  answers_.splice(answers_.end(), rooms_, rooms_.begin());
  return true;
}

void StreamState::Written(bool ok) {
  writing_ = false;
  held_bytes_ -= written_bytes_;
  written_bytes_ = 0;
  if (!ok) Fail(memory::CatchNoMemory([] { return absl::CancelledError("the caller reads no more"); }));
}

void StreamState::Fail(const absl::Status& status) {
  // A finished stream keeps the status that it was finished with.
  if (!finished_) failure_.Update(status);
}

void StreamState::EndQuietly(const absl::Status& status) {
  ending_ = true;
  Fail(status);
}

}  // namespace attnd::server
