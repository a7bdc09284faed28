// Cuts a large call into pieces that are sent and computed separately.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "attnd/attention.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// A range of the batch's sequences, and a range of their key/value heads with all query heads of each. It has either
// all heads or one sequence.
struct PieceRange {
  std::int64_t first_batch, batch;
  std::int64_t first_kv_head, kv_heads;
};

// Returns ranges that cover the call, each with about `piece_bytes` of q, k, v and output together. One key/value head
// of one sequence is never cut.
std::vector<PieceRange> CutIntoPieces(const Shape& shape, std::int64_t piece_bytes);

// One piece as a call of its own.
struct Piece {
  ComputeRequest request;
  Shape shape;
  WireFields fields;
  bool scattered;  // the output's rows are not contiguous in the whole: see Scatter
};

// Describes a piece of `whole`. The piece's destinations are parts of the whole's, so `whole` must have destinations
// for its output and, if it is returned, its log_sum_exp. The piece's tensors are left empty.
Piece DescribePiece(const ComputeRequest& whole, const Shape& shape, const PieceRange& range);

// Sets the piece's tensors to parts of the whole's. They are copied only if the piece's rows are not contiguous (some
// heads of [batch, sequence, heads, dim]). Errors: RESOURCE_EXHAUSTED.
absl::Status SetTensors(const ComputeRequest& whole, const Shape& shape, const PieceRange& range, Piece& piece);

// Copies the output of a `scattered` piece into the output of the whole.
void Scatter(const Tensor& output, const ComputeRequest& whole, const Shape& shape, const PieceRange& range);

}  // namespace attnd::client
