// The state of one stream of pieces, without gRPC: it is told of each event, and answers with the next step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>

#include "absl/status/status.h"

namespace attnd::server {

// What a piece counts beside its message and its tensors: what the server keeps of it, and its answer's small fields.
inline constexpr std::int64_t kPieceOverheadBytes = 4096;

// Pieces are read one at a time, computed in any number, and answered one at a time in the order in which they are
// done. A piece is computed once its message and its result fit into the window beside those of the other pieces, or
// alone if it is larger than the window. Until then it waits, and nothing more is read: a stream holds its window and
// one message at most, however slowly its answers are read. An answer counts until it is written.
//
// Whoever drives it reports each event, asks Next for the step that follows, does what that says, and calls Done; then
// asks again, until there is nothing to do. Only Arrived takes memory: where that fails it throws std::bad_alloc and
// has changed nothing, and ReadFailed must follow. Thread-compatible.
class StreamState {
 public:
  explicit StreamState(std::int64_t window_bytes) : window_bytes_(window_bytes) {}

  // What to do, in this order. Each is said once.
  struct Step {
    bool give_up = false;                  // the stream has failed: cancel what is computed, drop what waits
    std::optional<std::uint64_t> write;    // the answer of this piece; its id is free from now on
    std::optional<std::uint64_t> compute;  // this piece
    bool read = false;                     // the next piece
    bool finish = false;                   // with failure(), and together with the write if there is one

    bool anything() const { return give_up || write.has_value() || compute.has_value() || read || finish; }
  };
  Step Next();
  // A step that did not finish the stream is done: its read, write or computation may be over already.
  void Done() { --steps_; }

  struct Piece {
    std::uint64_t id = 0;
    std::int64_t message_bytes = 0;
    std::int64_t result_bytes = 0;  // what its result will take
  };
  enum class Arrival { kTaken, kIdInUse, kOver };
  // The read brought a piece. kIdInUse fails nothing yet: Fail must follow. kOver: the stream has failed, the piece is
  // not wanted.
  Arrival Arrived(const Piece& piece);
  // The read brought nothing: the caller sends no more, or is gone.
  void AllRead();
  // The read brought what is no piece.
  void ReadFailed(const absl::Status& status);

  // A piece that was to be computed is done, and its answer has this many bytes. False if the answer is not wanted,
  // since the stream has failed.
  [[nodiscard]] bool Computed(std::uint64_t id, std::int64_t answer_bytes);

  // The write is over. Not after the write that finished the stream.
  void Written(bool ok);

  // Ends the stream with this error, unless it has failed before. The read that is under way must come to an end.
  void Fail(const absl::Status& status);
  // The same while nothing is busy(): a read that is under way is not waited for.
  void EndQuietly(const absl::Status& status);

  // Whether a piece waits, is computed, or has an answer that is not written.
  bool busy() const { return waiting_.has_value() || computing_ > 0 || !answers_.empty() || writing_; }
  const absl::Status& failure() const { return failure_; }
  // By pieces that are computed, and answers that wait or are written; and by the piece that waits.
  std::int64_t held_bytes() const { return held_bytes_; }
  std::int64_t waiting_bytes() const { return waiting_.has_value() ? waiting_->message_bytes : 0; }

 private:
  struct Answer {
    std::uint64_t id = 0;
    std::int64_t bytes = 0;
  };
  bool Fits(const Piece& piece) const;

  const std::int64_t window_bytes_;
  std::map<std::uint64_t, std::int64_t>
      held_;  // by each piece from its arrival until its answer is begun to be written
  std::optional<Piece> waiting_;
  std::list<Answer> answers_;
  std::list<Answer> rooms_;  // for the answers of the pieces that wait or are computed
  std::int64_t held_bytes_ = 0;
  std::int64_t written_bytes_ = 0;  // of the answer that is being written
  std::int64_t computing_ = 0;
  std::int64_t steps_ = 0;  // handed out, and not done yet
  bool reading_ = false;
  bool writing_ = false;
  bool all_read_ = false;
  bool given_up_ = false;
  bool ending_ = false;  // whether or not a read is under way
  bool finished_ = false;
  absl::Status failure_;
};

}  // namespace attnd::server
