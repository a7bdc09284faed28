// The attention problem as plain data: the input of every engine (the reference and each kernel).
//
//   out[b,h,i] = sum_j softmax_j( scale * q[b,h,i].k[b,g,j] + bias(h, offset) + key_bias[h,j] ) v[b,g,j]
//   offset = (query_offset + i) - j,   g = h / (heads / kv_heads)
//
// over the keys j that row i sees: those that key_starts, key_lengths and key_bits do not mask and for which
//
//   (mask is not causal, or offset >= 0, or j < prefix_lengths[b])  and  -right <= offset <= left
//
// Nothing here owns memory: the caller keeps everything alive until the work is done. Values are trusted: the code that
// fills these structs in (the server's validation, or a test) has validated them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace attnd::kernel {

// A contiguous range of a tensor's bytes. It needs no alignment, and a row, even an element, may straddle two segments.
struct Segment {
  const std::byte* data;
  std::size_t size;
  std::size_t begin = 0;  // offset in the tensor: the total size of the segments before it
};

// A read-only [batch, heads, rows, dim] tensor with a contiguous last axis. Its bytes are spread over one or more
// segments (a message received in several slices) or over pages. Strides and element positions count elements from the
// start of the first segment, or of a page.
struct TensorView {
  const Segment* segments;
  std::int64_t segment_count;
  tensor::DType dtype;
  std::int64_t batch_stride;
  std::int64_t head_stride;
  std::int64_t row_stride;
  const std::int64_t* starts = nullptr;  // null, or [batch]: the position of each entry, instead of multiples of
                                         // batch_stride; entries may share rows

  // Pages (of keys and values only) replace segments, batch_stride and starts. pages[b] lists the pages of entry b.
  // Each page has page_rows rows of all heads; row r of head h is at page_begin + h * head_stride + r * row_stride.
  // Several lists may contain the same page, and several entries may have the same list.
  const std::byte* const* const* pages = nullptr;
  std::int64_t page_rows = 0;
  std::int64_t page_begin = 0;
};

// The output: one contiguous buffer of any alignment. With `starts` (as in TensorView, but entries share no rows), the
// rows after an entry's query length belong to others and are not written.
struct OutputView {
  std::byte* data;
  tensor::DType dtype;
  std::int64_t batch_stride;
  std::int64_t head_stride;
  std::int64_t row_stride;
  const std::int64_t* starts = nullptr;
};

// One head-major bias table in per-offset form:
//
//   bias(h, o) = constant[h] + values[h * head_stride + (max_offset - o)]   min_offset <= o <= max_offset
//              = constant[h] - high_slope[h] * (o - max_offset)             o > max_offset
//              = constant[h] + low_value[h] - low_slope[h] * (min_offset - o)    o < min_offset
//
// Values are ordered by descending offset, so that one query's biases over consecutive keys are contiguous. `constant`
// was subtracted from the values so that a T5 table is exactly 0 from max_offset on; softmax is invariant to it, and
// log-sum-exp adds it back. Null slopes are zeros. The value at max_offset is 0, at min_offset low_value.
struct BiasView {
  const float* values;
  std::int64_t head_stride;
  std::int64_t min_offset;
  std::int64_t max_offset;
  const float* constant;
  const float* low_value;
  const float* high_slope;
  const float* low_slope;
};

enum class Mask : std::uint8_t { kCausal, kNone };

// A window side that hides nothing; small enough that adding it to any position does not overflow.
inline constexpr std::int64_t kAnyDistance = std::int64_t{1} << 60;

// Products of bf16 inputs: widened to fp32, or multiplied as bf16 (fp32 sums) where the kernel can.
enum class ProductPrecision : std::uint8_t { kF32, kBF16 };

struct Attention {
  std::int64_t batch;
  std::int64_t heads;
  std::int64_t kv_heads;  // divides heads
  std::int64_t query_length;
  std::int64_t key_length;
  std::int64_t head_dim;
  std::int64_t value_head_dim;

  TensorView q;        // [batch, heads, query_length, head_dim]
  TensorView k;        // [batch, kv_heads, key_length, head_dim]
  TensorView v;        // [batch, kv_heads, key_length, value_head_dim]
  OutputView out;      // [batch, heads, query_length, value_head_dim]
  float* log_sum_exp;  // null, or [batch, heads, query_length] row-major; natural logarithm, -inf for an empty row

  Mask mask;
  float scale;
  std::int64_t query_offset;          // position of query row 0
  const std::int64_t* query_lengths;  // null, or [batch]; rows from here on give zeros (log-sum-exp -inf)
  const std::int64_t* key_lengths;    // null, or [batch]; keys from here on are masked
  const BiasView* bias;               // null: no bias
  ProductPrecision product_precision;

  const std::int64_t* query_offsets;  // null, or [batch]; replaces query_offset
  const std::int64_t* key_starts;     // null, or [batch]; keys before are masked
  const std::byte* key_bits;          // null, or [batch][(key_length + 7) / 8]; key j is masked if bit j % 8 of byte
                                      // j / 8 is 0

  std::int64_t left = kAnyDistance;              // the window: how far a key may be before its query (>= 0),
  std::int64_t right = kAnyDistance;             // and after it
  const std::int64_t* prefix_lengths = nullptr;  // null, or [batch]; keys before this are never hidden by the causal
                                                 // mask
  const float* key_bias = nullptr;               // null, or [heads, key_length] row-major

  // With out.starts and log_sum_exp: the index in log_sum_exp of the first row of each entry's first head, and the
  // distance between heads.
  const std::int64_t* log_sum_exp_starts = nullptr;
  std::int64_t log_sum_exp_stride = 0;
};

// Whether two batch entries have their rows in the same memory.
[[gnu::always_inline]] inline bool SharesRows(const TensorView& view, std::int64_t batch, std::int64_t other) {
  if (view.pages != nullptr) return view.pages[batch] == view.pages[other];
  return view.starts != nullptr && view.starts[batch] == view.starts[other];
}

// The position of a row of a TensorView without pages or of an OutputView, in elements.
template <typename View>
[[gnu::always_inline]] inline std::int64_t PlaceOf(const View& view, std::int64_t batch, std::int64_t head,
                                                   std::int64_t row) {
  const std::int64_t start = view.starts == nullptr ? batch * view.batch_stride : view.starts[batch];
  return start + head * view.head_stride + row * view.row_stride;
}

// The element that receives a row's log-sum-exp.
[[gnu::always_inline]] inline float& LogSumExpOf(const Attention& a, std::int64_t batch, std::int64_t head,
                                                 std::int64_t row) {
  if (a.log_sum_exp_starts == nullptr) return a.log_sum_exp[(batch * a.heads + head) * a.query_length + row];
  return a.log_sum_exp[a.log_sum_exp_starts[batch] + head * a.log_sum_exp_stride + row];
}

// Rows after a batch entry's query length that the kernel sets to zero.
[[gnu::always_inline]] inline std::int64_t UnusedRows(const Attention& a, std::int64_t batch) {
  if (a.query_lengths == nullptr || a.out.starts != nullptr) return 0;
  return a.query_length - a.query_lengths[batch];
}

}  // namespace attnd::kernel
