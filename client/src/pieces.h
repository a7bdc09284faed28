// Cuts a large call into pieces that travel and are computed on their own.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "attnd/attention.h"
#include "client/src/shape.h"
#include "client/src/wire_fields.h"

namespace attnd::client {

// Some sequences of a batch, and of these some key/value heads with all their query heads. Either all heads, or one
// sequence.
struct PieceRange {
  std::int64_t first_batch, batch;
  std::int64_t first_kv_head, kv_heads;
};

// Ranges that cover the call, each of about `piece_bytes` of q, k, v and output together; one key/value head of one
// sequence is not cut.
std::vector<PieceRange> CutIntoPieces(const Shape& shape, std::int64_t piece_bytes);

// One piece as a call of its own.
struct Piece {
  ComputeRequest request;
  Shape shape;
  WireFields fields;
  bool scattered;  // the output's rows go to places apart: see Scatter
};

// The piece of `whole`, whose output (and log_sum_exp, if it is returned) must have a destination: of which the piece's
// are parts. Its tensors are left empty.
Piece DescribePiece(const ComputeRequest& whole, const Shape& shape, const PieceRange& range);

// Sets the piece's tensors, which are parts of the whole's; only where the layout tears a piece's rows apart (some
// heads of [batch, sequence, heads, dim]) they are copied. Errors: RESOURCE_EXHAUSTED.
absl::Status SetTensors(const ComputeRequest& whole, const Shape& shape, const PieceRange& range, Piece& piece);

// Copies the output of a `scattered` piece to its places in the output of the whole.
void Scatter(const Tensor& output, const ComputeRequest& whole, const Shape& shape, const PieceRange& range);

}  // namespace attnd::client
