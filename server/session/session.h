// A session's keys and values, and its steps one by one. Without gRPC.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/v1/session.pb.h"
#include "cache/sequences.h"
#include "server/attention/validation.h"
#include "server/config/limits.h"
#include "server/session/session_shape.h"
#include "server/wire/codec.h"

namespace attnd::server {

class SharedMemory;

// Begin makes a step's changes provisionally, the driver then computes the step, and End commits or rolls back the
// changes. A step that fails to begin has changed nothing. Thread-compatible.
class Session {
 public:
  // `shape` must come from CheckOpen, and its reserved_bytes() must have been reserved. `memory`: shared memory of
  // callers, borrowed; null if callers cannot share memory. `max_sent_bytes`: the most bytes of output and log-sum-exp
  // in an answer. Errors: RESOURCE_EXHAUSTED if the system has too little memory. May throw std::bad_alloc.
  static absl::StatusOr<std::unique_ptr<Session>> Create(SessionShape shape, const Limits& limits,
                                                         const SharedMemory* memory, std::int64_t max_sent_bytes);

  // Estimates how many bytes Begin reads and writes for a step, valid or not.
  std::int64_t BytesToCopy(const v1::SessionStep& step) const;

  // Makes the step's changes and returns what it computes, or nullopt if it has no queries. The result borrows from the
  // step's tensors and from the session until End. Errors: INVALID_ARGUMENT, OUT_OF_RANGE (more tokens than the session
  // may have), FAILED_PRECONDITION (a step number or length other than the session's; unknown shared memory),
  // RESOURCE_EXHAUSTED; each names the field. Never throws. If OK, End must follow.
  absl::StatusOr<std::optional<ValidAttention>> Begin(const v1::SessionStep& step, const RequestTensors& tensors);
  // Ends the step that was begun: commits its changes if `ok`, otherwise rolls them back.
  void End(bool ok);

  // Sets the lengths of the last step's layer, and the bytes in use. May throw std::bad_alloc.
  void Describe(v1::SessionStepResult& result) const;

  // Call between steps, for another connection.
  void SetMaxSentBytes(std::int64_t bytes) { max_sent_bytes_ = bytes; }

  std::uint64_t last_step() const { return last_step_; }  // the last that succeeded; 0: none yet
  std::int64_t used_bytes() const;
  const SessionShape& shape() const { return shape_; }

 private:
  // State of rows and sources other than their tokens.
  struct Marks {
    std::vector<std::int64_t> row_sources;  // [rows]
    std::vector<std::int64_t> key_starts;   // [rows]
    std::vector<std::byte> key_bits;        // [sources][(key_bits_length + 7) / 8]
    std::int64_t key_bits_length = 0;
  };

  Session(SessionShape shape, const Limits& limits, const SharedMemory* memory, std::int64_t max_sent_bytes,
          std::unique_ptr<cache::Sequences> self, std::unique_ptr<cache::Sequences> cross);

  absl::StatusOr<std::optional<ValidAttention>> Prepare(const v1::SessionStep& step, const RequestTensors& tensors);
  absl::Status CheckStep(const v1::SessionStep& step) const;
  void Change(const v1::SessionStep& step);
  absl::Status CheckLengths(const v1::SessionStep& step) const;
  absl::Status Append(const v1::SessionStep& step, const RequestTensors& tensors);
  absl::StatusOr<ValidAttention> Attend(const v1::SessionStep& step, const RequestTensors& tensors);
  void PointToKeyBits(kernel::Attention& attention);

  const SessionLayer& LayerOf(std::int64_t layer) const { return shape_.layers[static_cast<std::size_t>(layer)]; }
  // The sequences that hold a layer's keys and values.
  cache::Sequences& KeptBy(const SessionLayer& layer) const { return layer.is_self ? *self_ : *cross_; }

  const SessionShape shape_;
  const Limits limits_;
  const SharedMemory* const memory_;
  std::int64_t max_sent_bytes_;
  const std::unique_ptr<cache::Sequences> self_, cross_;  // null without layers of that kind
  Marks marks_;
  std::uint64_t last_step_ = 0;
  std::int64_t last_layer_ = 0;

  // Of the step under way. step_ is 0 between steps.
  std::uint64_t step_ = 0;
  Marks marks_before_;
  // Lists that its attention points to.
  std::vector<const std::byte* const*> lists_;
  std::vector<std::int64_t> key_lengths_, query_lengths_, query_offsets_;
  std::vector<std::byte> row_bits_;
};

}  // namespace attnd::server
