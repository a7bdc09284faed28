// A session: what it keeps, and its steps one by one. Without gRPC.
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

// A step is begun, which makes its changes for the time being, then computed by whoever drives the session, and ended,
// which keeps its changes or takes them back. A step that cannot begin has changed nothing. Thread-compatible.
class Session {
 public:
  // `shape` from CheckOpen; its reserved_bytes() have been taken. `memory` is what callers share, borrowed; null if
  // they cannot. `max_sent_bytes`: of output and log-sum-exp in an answer. Errors: RESOURCE_EXHAUSTED if the system has
  // no room for so much. May throw std::bad_alloc.
  static absl::StatusOr<std::unique_ptr<Session>> Create(SessionShape shape, const Limits& limits,
                                                         const SharedMemory* memory, std::int64_t max_sent_bytes);

  // About how many bytes Begin reads and writes for a step. Any step: it need not be valid.
  std::int64_t BytesToCopy(const v1::SessionStep& step) const;

  // What a step computes, or nullopt if it has no queries. It borrows from the step's tensors and from the session
  // until End. Errors: INVALID_ARGUMENT, OUT_OF_RANGE (more tokens than the session may have), FAILED_PRECONDITION
  // (another step or length than the session's; unknown shared memory), RESOURCE_EXHAUSTED; each names the field. Never
  // throws. If OK, End must follow.
  absl::StatusOr<std::optional<ValidAttention>> Begin(const v1::SessionStep& step, const RequestTensors& tensors);
  // The step that was begun is done (`ok`), or is not to have happened.
  void End(bool ok);

  // Sets the lengths of the layer of the step that was ended last, and the bytes in use. May throw std::bad_alloc.
  void Describe(v1::SessionStepResult& result) const;

  // Between steps: another connection's.
  void SetMaxSentBytes(std::int64_t bytes) { max_sent_bytes_ = bytes; }

  std::uint64_t last_step() const { return last_step_; }  // that succeeded; 0: none yet
  std::int64_t used_bytes() const;
  const SessionShape& shape() const { return shape_; }

 private:
  // What belongs to rows and sources beside their tokens.
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
  // Where a layer's keys and values are.
  cache::Sequences& KeptBy(const SessionLayer& layer) const { return layer.is_self ? *self_ : *cross_; }

  const SessionShape shape_;
  const Limits limits_;
  const SharedMemory* const memory_;
  std::int64_t max_sent_bytes_;
  const std::unique_ptr<cache::Sequences> self_, cross_;  // null without such layers
  Marks marks_;
  std::uint64_t last_step_ = 0;
  std::int64_t last_layer_ = 0;

  // Of the step that is under way.
  std::uint64_t step_ = 0;
  Marks marks_before_;
  // What its attention points at.
  std::vector<const std::byte* const*> lists_;
  std::vector<std::int64_t> key_lengths_, query_lengths_, query_offsets_;
  std::vector<std::byte> row_bits_;
};

}  // namespace attnd::server
