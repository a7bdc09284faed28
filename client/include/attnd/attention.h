// The attention call: what is asked and what comes back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace attnd {

// Element type of a tensor: little-endian, 4, 2 and 2 bytes.
enum class DType { kFp32 = 1, kFp16 = 2, kBf16 = 3 };

// Bytes of one element.
std::size_t SizeOf(DType dtype);

// Order of the axes of q, k, v and the output.
enum class Layout {
  kBatchHeadSequenceDim = 1,  // [batch, heads, sequence, head_dim]
  kBatchSequenceHeadDim = 2,  // [batch, sequence, heads, head_dim], as projections give it
};

// Which keys a query may see.
enum class Mask {
  kOfTable = 0,  // causal for a causal table, none for a bidirectional one
  kCausal = 1,   // only keys at or before the query
  kNone = 2,     // every key
};

// Which bias is added to q.k.
enum class Bias {
  kOfTable = 0,  // that of the model's table
  kNone = 1,     // none: the call names no model, and Mask::kOfTable is Mask::kNone
};

// Arithmetic of the two products; see ProductPrecision in attnd/v1/attention.proto.
enum class ProductPrecision { kOfDtype = 0, kFp32 = 1, kBf16 = 2 };

// A tensor in the caller's memory: row-major, contiguous, of any alignment. The bytes travel from where they are; only
// a tensor of a few KiB, rows that a piece of a large call takes out of [batch, sequence, heads, head_dim], and what
// goes to a server that shares memory from elsewhere than a SharedBuffer are copied once.
//
// The memory is borrowed until the call has ended, or, if `owner` is set, kept alive by it for as long as it is needed.
// The last reference to `owner` may be dropped on a thread of gRPC, so its deleter must not block. A call does not end
// while gRPC holds on to borrowed memory. So a call that is cut short (by its deadline or a cancellation) just as its
// bytes are being written to a peer that does not read ends when they are written, or the connection is given up
// (ClientOptions::keepalive_timeout).
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kFp32;
  std::array<std::int64_t, 4> sizes{};  // in the order of the request's layout
  std::shared_ptr<const void> owner = nullptr;
};

// Memory of the caller that a result is written into. Must stay valid until the call has ended.
struct Destination {
  void* data = nullptr;
  std::size_t size_bytes = 0;
};

// A result in memory of its own. Copies share that memory, which nobody changes. Thread-safe to read.
class Tensor {
 public:
  using Segment = absl::Span<const unsigned char>;

  Tensor() = default;
  // One piece of memory that `owner` keeps alive.
  Tensor(DType dtype, std::array<std::int64_t, 4> sizes, Segment bytes, std::shared_ptr<const void> owner);
  // Several pieces, in order.
  Tensor(DType dtype, std::array<std::int64_t, 4> sizes, std::vector<Segment> segments,
         std::shared_ptr<const void> owner);

  DType dtype() const { return dtype_; }
  const std::array<std::int64_t, 4>& sizes() const { return sizes_; }  // in the order of the request's layout
  std::size_t size_bytes() const { return size_bytes_; }

  // The elements, aligned for their type; null if empty, or (only with ComputeRequest::output_in_segments) in several
  // pieces or at an address that is not aligned for them.
  const void* data() const;

  // The bytes in order, in one or more pieces. A piece may begin and end inside of an element.
  absl::Span<const Segment> segments() const { return segments_; }

  // Copies size_bytes() bytes to `destination`.
  void CopyTo(void* destination) const;

 private:
  DType dtype_ = DType::kFp32;
  std::array<std::int64_t, 4> sizes_{};
  std::size_t size_bytes_ = 0;
  std::vector<Segment> segments_;
  std::shared_ptr<const void> owner_;
};

// One batch of queries, keys and values. See ComputeAttentionRequest in attnd/v1/attention.proto for each field's exact
// meaning and range.
struct ComputeRequest {
  Bias bias = Bias::kOfTable;  // kNone: model, version, table and first_head stay as they are here
  std::string model;           // name of a loaded model
  std::uint64_t version = 0;   // 0: the current one
  std::string table;           // "decoder" (also if empty), "encoder", "decoder.N", "encoder.N"

  TensorView q;  // [batch, heads, query_length, head_dim] in `layout`
  TensorView k;  // [batch, kv_heads, key_length, head_dim]; kv_heads divides heads (grouped-query attention)
  TensorView v;  // [batch, kv_heads, key_length, value_head_dim]
  Layout layout = Layout::kBatchHeadSequenceDim;

  Mask mask = Mask::kOfTable;
  std::optional<float> scale;                // of q.k; absent: 1
  std::optional<std::int64_t> query_offset;  // position of the first query; absent: key_length - query_length
  std::vector<std::int64_t> query_offsets;   // [batch], in place of query_offset; or empty
  std::vector<std::int64_t> query_lengths;   // [batch] or empty
  std::vector<std::int64_t> key_lengths;     // [batch] or empty; later keys are masked
  std::vector<std::int64_t> key_starts;      // [batch] or empty; earlier keys are masked
  std::vector<unsigned char> key_bits;       // which keys are true: PackKeyBits makes it of a mask; or empty
  // The most that a key may stand before a query, and after it; absent: any distance. See the proto for prefix_lengths.
  std::optional<std::int64_t> window_left;
  std::optional<std::int64_t> window_right;
  std::vector<std::int64_t> prefix_lengths;  // [batch] or empty; a causal mask hides none of these first keys
  std::vector<float> key_bias;               // [heads, key_length] or empty; added to q.k beside the table's bias
  // Sequences packed into the rows of the batch: where each begins, in all rows laid end to end; see the proto.
  // key_segments may be empty where query_length is key_length.
  std::vector<std::int64_t> query_segments;
  std::vector<std::int64_t> key_segments;
  // The sequence of k and v that each sequence of q reads, [batch]; or empty. k and v may then have another batch than
  // q. Beams of one source should follow each other: their keys are then read once.
  std::vector<std::int64_t> kv_rows;
  std::optional<std::int64_t> first_head;  // the table's head of query head 0; absent: the call has all heads
  ProductPrecision product_precision = ProductPrecision::kOfDtype;

  std::optional<DType> output_dtype;  // absent: that of q, k and v
  bool return_log_sum_exp = false;

  // Where the results go. Without a destination they come back in ComputeReply, in memory of their own. A destination
  // must have exactly the result's size: batch * heads * query_length * value_head_dim elements of the output's dtype,
  // and batch * heads * query_length floats.
  Destination output;
  Destination log_sum_exp;
  // Without a destination: hand the output over in the pieces that it arrived in instead of gathering them. (A call
  // that travels in pieces, or through shared memory, has its output in one piece all the same.)
  bool output_in_segments = false;
};

// ComputeRequest::key_bits of a mask [batch, key_length] of a byte for each key, 0 for the keys that are masked. Bytes
// that fill no row are left out; empty if key_length is less than 1.
std::vector<unsigned char> PackKeyBits(absl::Span<const unsigned char> mask, std::int64_t key_length);

// How a call reached the server.
enum class Transport {
  kGrpc = 0,          // with its tensors
  kSharedMemory = 1,  // by gRPC; tensors in shared memory (some that are small may have been sent)
  kLocal = 2,         // over the local socket, without gRPC (docs/shared-memory.md, "Calls"); tensors as they fit
};

// The result of one call.
struct ComputeReply {
  Tensor output;                   // empty if it went to ComputeRequest::output
  std::vector<float> log_sum_exp;  // [batch, heads, query_length]; empty if not asked for or with a destination
  DType dtype = DType::kFp32;      // of the output
  std::uint64_t version = 0;       // of the model that was used; 0 with Bias::kNone
  std::string content_hash;        // of that version; empty with Bias::kNone
  // From the request's arrival at the server to the start of its work, and from then until the work was done. Of a
  // large call that travelled in pieces: the longest of the former, the sum of the latter.
  absl::Duration queue_time;
  absl::Duration compute_time;
  std::int64_t pieces = 1;  // that the call travelled in; several are computed at once
  Transport transport = Transport::kGrpc;
};

}  // namespace attnd
