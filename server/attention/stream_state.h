// The state of one stream of pieces, without gRPC: it takes each event and returns the next step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>

#include "absl/status/status.h"

namespace attnd::server {

// Counted for each piece in addition to its message and its result: the server's bookkeeping and the answer's small
// fields.
inline constexpr std::int64_t kPieceOverheadBytes = 4096;

// Pieces are read one at a time, computed concurrently, and answered one at a time in the order in which they finish. A
// piece is computed once its message and its result fit into the window together with those of the other pieces, or
// alone if it is larger than the window. Until then it waits, and nothing more is read: a stream holds at most its
// window and one message, however slowly its answers are read. An answer counts until it is written.
//
// The driver reports each event, asks Next for the step that follows, does it, and calls Done; it repeats this until
// there is nothing to do. Only Arrived allocates memory: if that fails, it throws std::bad_alloc and has changed
// nothing, and ReadFailed must follow. Thread-compatible.
class StreamState {
 public:
  explicit StreamState(std::int64_t window_bytes) : window_bytes_(window_bytes) {}

  // What to do, in this order. Each is returned once.
  struct Step {
    bool give_up = false;                // the stream has failed: cancel pieces under computation, drop those that wait
    std::optional<std::uint64_t> write;  // the answer of this piece; its id may be reused from now on
    std::optional<std::uint64_t> compute;  // this piece
    bool read = false;                     // the next piece
    bool finish = false;                   // with failure(); in one operation with the write, if there is one

    bool anything() const { return give_up || write.has_value() || compute.has_value() || read || finish; }
  };
  Step Next();
  // A step that did not finish the stream has been carried out; its read, write or computation may already be over.
  void Done() { --steps_; }

  struct Piece {
    std::uint64_t id = 0;
    std::int64_t message_bytes = 0;
    std::int64_t result_bytes = 0;  // expected size of its result
  };
  enum class Arrival { kTaken, kIdInUse, kOver };
  // The read brought a piece. kIdInUse does not fail the stream by itself: Fail must follow. kOver: the stream has
  // failed, and the piece is dropped.
  Arrival Arrived(const Piece& piece);
  // The read brought nothing: the caller has ended its side, or is gone.
  void AllRead();
  // The read brought something that is not a piece.
  void ReadFailed(const absl::Status& status);

  // A piece has been computed, and its answer has this many bytes. Returns false if the answer is to be dropped because
  // the stream has failed.
  [[nodiscard]] bool Computed(std::uint64_t id, std::int64_t answer_bytes);

  // The write is over. Not called for the write that finished the stream.
  void Written(bool ok);

  // Ends the stream with this error, unless it has already failed. A read under way must still complete before the
  // stream ends.
  void Fail(const absl::Status& status);
  // The same for a stream that is not busy(); does not wait for a read under way.
  void EndQuietly(const absl::Status& status);

  // Whether a piece waits, is being computed, or has an answer that is not written.
  bool busy() const { return waiting_.has_value() || computing_ > 0 || !answers_.empty() || writing_; }
  const absl::Status& failure() const { return failure_; }
  // Bytes held by pieces under computation and by answers not yet written; and by the waiting piece.
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
      held_;  // bytes of each piece from its arrival until its write begins; 0 while it waits
  std::optional<Piece> waiting_;
  std::list<Answer> answers_;
  std::list<Answer> rooms_;  // nodes allocated in advance for answers_, one for each piece that waits or is computed
  std::int64_t held_bytes_ = 0;
  std::int64_t written_bytes_ = 0;  // of the answer being written
  std::int64_t computing_ = 0;
  std::int64_t steps_ = 0;  // returned by Next, Done not yet called
  bool reading_ = false;
  bool writing_ = false;
  bool all_read_ = false;
  bool given_up_ = false;
  bool ending_ = false;  // do not wait for a read under way
  bool finished_ = false;
  absl::Status failure_;
};

}  // namespace attnd::server
