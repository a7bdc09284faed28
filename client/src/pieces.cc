#include "client/src/pieces.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "contract/request.h"

namespace attnd::client {
namespace {

// The extent of a whole tensor in bytes: [batch][heads][rows of `row`] or, sequence first, [batch][rows][heads of
// `row`].
struct Extent {
  std::int64_t heads, rows, row;
  std::int64_t head_bytes() const { return rows * row; }
  std::int64_t batch_bytes() const { return heads * rows * row; }
};

bool SequenceFirst(const ComputeRequest& r) { return r.layout == Layout::kBatchSequenceHeadDim; }

// The piece's part of `values`, which has `width` values for each sequence or is empty.
template <typename T>
std::vector<T> Slice(const std::vector<T>& values, const PieceRange& range, std::int64_t width = 1) {
  if (values.empty()) return {};
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(range.first_batch * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(range.batch * width)};
}

// Copies some heads of one sequence from a sequence-first tensor of all heads (`stride` bytes for each row) to a new
// tensor of these heads alone (`width` bytes for each row).
absl::Status Collect(const unsigned char* from, std::int64_t stride, std::int64_t width, std::int64_t rows,
                     TensorView& view) {
  const auto bytes = static_cast<std::size_t>(rows * width);
  std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[bytes]);
  if (memory == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of a piece"));
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(memory.get() + i * width, from + i * stride, static_cast<std::size_t>(width));
  }
  view.data = memory.get();
  view.owner = std::move(memory);
  return absl::OkStatus();
}

struct HeadRange {
  std::int64_t first, count;
};

// Narrows `view` from the whole tensor to the piece's.
absl::Status Narrow(const ComputeRequest& whole, const PieceRange& range, HeadRange heads, const Extent& extent,
                    TensorView& view) {
  const auto* data = static_cast<const unsigned char*>(view.data) + range.first_batch * extent.batch_bytes();
  view.sizes[0] = range.batch;
  view.sizes[SequenceFirst(whole) ? 2 : 1] = heads.count;
  if (heads.count == extent.heads || !SequenceFirst(whole)) {
    view.data = data + heads.first * extent.head_bytes();
    return absl::OkStatus();
  }
  return Collect(data + heads.first * extent.row, extent.heads * extent.row, heads.count * extent.row, extent.rows,
                 view);
}

void SetShape(const PieceRange& range, std::int64_t group, Shape& shape) {
  const auto part = [&](std::int64_t bytes) {
    return bytes / (shape.batch * shape.kv_heads) * range.batch * range.kv_heads;
  };
  for (std::int64_t* bytes :
       {&shape.q_bytes, &shape.k_bytes, &shape.v_bytes, &shape.output_bytes, &shape.log_sum_exp_bytes}) {
    *bytes = part(*bytes);
  }
  shape.batch = shape.kv_batch = range.batch;
  shape.kv_heads = range.kv_heads;
  shape.heads = range.kv_heads * group;
}

Extent OutputExtent(const Shape& shape) {
  return {shape.heads, shape.query_length,
          shape.value_head_dim * static_cast<std::int64_t>(SizeOf(shape.output_dtype))};
}

}  // namespace

std::vector<PieceRange> CutIntoPieces(const Shape& shape, std::int64_t piece_bytes) {
  const std::int64_t total = shape.q_bytes + shape.k_bytes + shape.v_bytes + shape.output_bytes;
  const std::int64_t units = shape.batch * shape.kv_heads;  // units that are not cut further
  const std::int64_t pieces = std::clamp<std::int64_t>(total / piece_bytes, 1, units);
  // Cuts evenly, so that no small remainder becomes a piece of its own.
  std::vector<PieceRange> ranges;
  if (pieces <= shape.batch) {
    for (std::int64_t i = 0; i < pieces; ++i) {
      const std::int64_t begin = shape.batch * i / pieces, end = shape.batch * (i + 1) / pieces;
      ranges.push_back({begin, end - begin, 0, shape.kv_heads});
    }
    return ranges;
  }
  const std::int64_t per_sequence = std::min(shape.kv_heads, (pieces + shape.batch - 1) / shape.batch);
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t i = 0; i < per_sequence; ++i) {
      const std::int64_t begin = shape.kv_heads * i / per_sequence, end = shape.kv_heads * (i + 1) / per_sequence;
      ranges.push_back({b, 1, begin, end - begin});
    }
  }
  return ranges;
}

Piece DescribePiece(const ComputeRequest& whole, const Shape& shape, const PieceRange& range) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  const HeadRange heads{range.first_kv_head * group, range.kv_heads * group};
  const bool some_heads = heads.count != shape.heads;
  Piece piece{whole, shape, {}, SequenceFirst(whole) && some_heads};
  ComputeRequest& r = piece.request;
  r.q = r.k = r.v = {};
  r.query_offsets = Slice(whole.query_offsets, range);
  r.query_lengths = Slice(whole.query_lengths, range);
  r.key_lengths = Slice(whole.key_lengths, range);
  r.key_starts = Slice(whole.key_starts, range);
  r.key_bits = Slice(whole.key_bits, range, contract::KeyBitsBytes(shape.key_length));
  r.prefix_lengths = Slice(whole.prefix_lengths, range);
  if (some_heads && !whole.key_bias.empty()) {
    const auto first = whole.key_bias.begin() + heads.first * shape.key_length;
    r.key_bias.assign(first, first + heads.count * shape.key_length);
  }
  SetShape(range, group, piece.shape);
  piece.shape.output_sizes[0] = range.batch;
  piece.shape.output_sizes[SequenceFirst(whole) ? 2 : 1] = heads.count;
  if (some_heads && whole.bias != Bias::kNone) {
    // From the piece the server cannot tell whether the whole call has as many heads as the table.
    if (!whole.first_head.has_value()) piece.fields.table_heads = shape.heads;
    r.first_head = whole.first_head.value_or(0) + heads.first;
  }
  const Extent out = OutputExtent(shape);
  if (piece.scattered) {
    r.output = {};
    r.output_in_segments = true;
  } else {
    auto* const begin = static_cast<unsigned char*>(whole.output.data) + range.first_batch * out.batch_bytes();
    r.output = {begin + heads.first * out.head_bytes(), static_cast<std::size_t>(piece.shape.output_bytes)};
  }
  if (whole.return_log_sum_exp) {
    auto* const begin =
        static_cast<float*>(whole.log_sum_exp.data) + range.first_batch * shape.heads * shape.query_length;
    r.log_sum_exp = {begin + heads.first * shape.query_length, static_cast<std::size_t>(piece.shape.log_sum_exp_bytes)};
  }
  return piece;
}

absl::Status SetTensors(const ComputeRequest& whole, const Shape& shape, const PieceRange& range, Piece& piece) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  const HeadRange heads{range.first_kv_head * group, range.kv_heads * group};
  const HeadRange kv_heads{range.first_kv_head, range.kv_heads};
  const auto element = static_cast<std::int64_t>(SizeOf(whole.q.dtype));
  const Extent q{shape.heads, shape.query_length, shape.head_dim * element};
  const Extent k{shape.kv_heads, shape.key_length, shape.head_dim * element};
  const Extent v{shape.kv_heads, shape.key_length, shape.value_head_dim * element};
  ComputeRequest& r = piece.request;
  r.q = whole.q;
  r.k = whole.k;
  r.v = whole.v;
  if (auto s = Narrow(whole, range, heads, q, r.q); !s.ok()) return s;
  if (auto s = Narrow(whole, range, kv_heads, k, r.k); !s.ok()) return s;
  return Narrow(whole, range, kv_heads, v, r.v);
}

void Scatter(const Tensor& output, const ComputeRequest& whole, const Shape& shape, const PieceRange& range) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  const Extent out = OutputExtent(shape);
  auto* row = static_cast<unsigned char*>(whole.output.data) + range.first_batch * out.batch_bytes() +
              range.first_kv_head * group * out.row;
  const auto width = static_cast<std::size_t>(range.kv_heads * group * out.row);
  std::size_t filled = 0;  // bytes of the current row
  for (Tensor::Segment segment : output.segments()) {
    while (!segment.empty()) {
      const std::size_t count = std::min(width - filled, segment.size());
      std::memcpy(row + filled, segment.data(), count);
      segment.remove_prefix(count);
      filled += count;
      if (filled == width) {
        filled = 0;
        row += out.heads * out.row;
      }
    }
  }
}

}  // namespace attnd::client
