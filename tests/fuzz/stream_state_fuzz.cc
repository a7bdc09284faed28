// StreamState, driven by a caller and a transport that do what the input says. The input: the window, then two bytes
// for each event, which event and its size.

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "check.h"
#include "server/attention/stream_state.h"

namespace {

using attnd::fuzz::Check;
using attnd::server::kPieceOverheadBytes;
using attnd::server::StreamState;

// What holds of any stream, whatever happens to it.
class Driver {
 public:
  explicit Driver(std::int64_t window) : window_(window), state_(window) { Settle(); }

  void Do(std::uint8_t event, std::uint8_t size) {
    switch (event % 12) {
      case 0:
      case 1:
      case 2:
        return Arrive(size);
      case 3:
      case 4:
        return Compute(size, /*whole=*/event % 2 == 0);
      case 5:
      case 6:
        return Written(true);
      case 7:
        return Written(false);
      case 8:
        if (!reading_) return;
        reading_ = false;
        if (size % 2 == 0) {
          state_.AllRead();
        } else {
          failed_ = failed_ || !finished_;
          state_.ReadFailed(absl::InvalidArgumentError("no piece"));
        }
        return Settle();
      case 9:  // the caller cancels, or the watch does
        failed_ = failed_ || !finished_;
        state_.Fail(absl::CancelledError("cancelled"));
        return Settle();
      case 10:  // the server stops
        if (state_.busy()) return;
        failed_ = failed_ || !finished_;
        quiet_ = true;
        state_.EndQuietly(absl::UnavailableError("stopping"));
        return Settle();
      case 11:  // a thread begins a step and is held up, or goes on
        if (held_up_) {
          held_up_ = false;
          state_.Done();
          return Settle();
        }
        hold_next_ = true;
        return;
      default:
        return;
    }
  }

  // Whatever is under way comes to its end, and then the stream does.
  void Drain() {
    hold_next_ = false;
    if (held_up_) {
      held_up_ = false;
      state_.Done();
      Settle();
    }
    while (!finished_) {
      if (!computing_.empty()) {
        Compute(0, true);
      } else if (writing_) {
        Written(true);
      } else {
        Check(reading_, "a stream that waits for nothing has ended");
        reading_ = false;
        state_.AllRead();
        Settle();
      }
    }
    Check(gate_ == (writing_ ? 1 : 0), "nothing is held at the end but the answer that ends it");
    Check(state_.held_bytes() == (writing_ ? written_bytes_ : 0), "and no bytes");
    if (state_.failure().ok()) Check(accepted_ == answered_, "every piece is answered");
    Check(answered_ <= accepted_, "no piece is answered twice");
    Check(state_.failure().ok() == !failed_, "it fails if anything did, and only then");
  }

 private:
  struct Piece {
    std::int64_t message = 0;
    std::int64_t result = 0;
    std::int64_t bytes() const { return message + result + kPieceOverheadBytes; }
  };

  void Arrive(std::uint8_t size) {
    if (!reading_) return;
    reading_ = false;
    const std::uint64_t id = size % 8;
    // From nothing to twice the window.
    const Piece piece{window_ / 16 * (size % 5), window_ / 16 * (size / 8)};
    const bool in_use = open_.count(id) > 0;
    switch (state_.Arrived({id, piece.message, piece.result})) {
      case StreamState::Arrival::kTaken:
        Check(!in_use, "ids are unique among the pieces that are not answered");
        Check(!failed_, "a failed stream takes no piece");
        Check(waiting_.empty(), "one piece waits at most");
        ++gate_;
        ++accepted_;
        open_.insert(id);
        waiting_.emplace(id, piece);
        break;
      case StreamState::Arrival::kIdInUse:
        Check(in_use, "an id that is free is taken");
        failed_ = failed_ || !finished_;
        state_.Fail(absl::InvalidArgumentError("id"));
        break;
      case StreamState::Arrival::kOver:
        Check(failed_, "a stream that goes on takes its pieces");
        break;
    }
    Settle();
  }

  void Compute(std::uint8_t which, bool whole) {
    if (computing_.empty()) return;
    auto done = computing_.begin();
    std::advance(done, which % computing_.size());
    const auto [id, piece] = *done;
    computing_.erase(done);
    // A result, or an error.
    const std::int64_t bytes = whole ? piece.result + kPieceOverheadBytes : kPieceOverheadBytes / 2;
    if (state_.Computed(id, bytes)) {
      Check(!failed_, "a failed stream wants no answer");
      answers_.emplace(id, bytes);
    } else {
      Check(failed_, "a stream that goes on wants its answers");
      open_.erase(id);
      --gate_;
    }
    Settle();
  }

  void Written(bool ok) {
    if (!writing_ || finished_) return;
    writing_ = false;
    --gate_;
    state_.Written(ok);
    if (!ok) failed_ = true;
    Settle();
  }

  // Does all there is to do.
  void Settle() {
    while (true) {
      CheckWindow();
      const StreamState::Step step = state_.Next();
      if (!step.anything()) break;
      Check(!finished_, "nothing is done after the end");
      if (step.give_up) GiveUp();
      if (step.write.has_value()) BeginWrite(*step.write);
      if (step.compute.has_value()) BeginComputing(*step.compute);
      if (step.read) {
        Check(!reading_, "one read at a time");
        Check(!failed_, "a failed stream reads no more");
        Check(waiting_.empty(), "nothing is read while a piece waits");
        Check(state_.held_bytes() < window_, "nothing is read while the window is full");
        reading_ = true;
      }
      if (step.finish) {
        Finish(step);
      } else if (hold_next_) {
        hold_next_ = false;
        held_up_ = true;  // its Done comes later
      } else {
        state_.Done();
      }
    }
    // What it waits for is under way, or it has ended.
    Check(finished_ || reading_ || writing_ || !computing_.empty() || held_up_,
          "a stream that goes on waits for something");
  }

  void GiveUp() {
    Check(failed_ && !given_up_, "it gives up once, for a reason");
    given_up_ = true;
    gate_ -= static_cast<std::int64_t>(waiting_.size() + answers_.size());
    waiting_.clear();
    answers_.clear();
  }

  void BeginWrite(std::uint64_t id) {
    Check(!writing_, "one write at a time");
    const auto answer = answers_.find(id);
    Check(answer != answers_.end(), "what is written has been computed");
    written_bytes_ = answer->second;
    answers_.erase(answer);
    open_.erase(id);
    writing_ = true;
    ++answered_;
  }

  void BeginComputing(std::uint64_t id) {
    const auto piece = waiting_.find(id);
    Check(piece != waiting_.end(), "what is computed has arrived");
    computing_.insert(*piece);
    waiting_.clear();
  }

  void Finish(const StreamState::Step& step) {
    finished_ = true;
    Check(computing_.empty() && answers_.empty() && waiting_.empty(), "nothing is left at the end");
    Check(!held_up_, "nobody is in the middle of a step");
    Check(!reading_ || quiet_, "no read is under way, unless the server ends a quiet stream");
    Check(step.write.has_value() == writing_, "no write is under way but the one that ends it");
    Check(!failed_ || given_up_, "what has failed is cancelled first");
  }

  void CheckWindow() const {
    std::int64_t held = writing_ ? written_bytes_ : 0;
    std::size_t pieces = writing_ ? 1 : 0;
    for (const auto& [id, piece] : computing_) held += piece.bytes();
    for (const auto& [id, bytes] : answers_) held += bytes;
    pieces += computing_.size() + answers_.size();
    Check(state_.held_bytes() == held, "it counts what is held");
    Check(held <= window_ || pieces == 1, "the window holds, but for a piece that is alone");
    Check(gate_ == static_cast<std::int64_t>(pieces + waiting_.size()),
          "each piece is in the gate until it is written");
  }

  const std::int64_t window_;
  StreamState state_;
  std::map<std::uint64_t, Piece> waiting_;
  std::map<std::uint64_t, Piece> computing_;
  std::map<std::uint64_t, std::int64_t> answers_;
  std::set<std::uint64_t> open_;  // ids that are not free
  std::int64_t written_bytes_ = 0;
  std::int64_t gate_ = 0;
  std::int64_t accepted_ = 0;
  std::int64_t answered_ = 0;
  bool reading_ = false;
  bool writing_ = false;
  bool failed_ = false;
  bool given_up_ = false;
  bool quiet_ = false;
  bool hold_next_ = false;
  bool held_up_ = false;
  bool finished_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  Driver driver(std::int64_t{1 + data[0]} * 4096);
  for (std::size_t i = 1; i + 1 < size; i += 2) driver.Do(data[i], data[i + 1]);
  driver.Drain();
  return 0;
}
