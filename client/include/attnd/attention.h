// The attention call: its request and its reply.
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
  kBatchSequenceHeadDim = 2,  // [batch, sequence, heads, head_dim], the order that projections produce
};

// Which keys a query attends to.
enum class Mask {
  kOfTable = 0,  // causal for a causal table, none for a bidirectional one
  kCausal = 1,   // only keys at or before the query
  kNone = 2,     // every key
};

// Which bias is added to q.k.
enum class Bias {
  kOfTable = 0,  // the bias of the model's table
  kNone = 1,     // no bias: the call must not name a model, and Mask::kOfTable means Mask::kNone
};

// Arithmetic of the two products; see ProductPrecision in attnd/v1/attention.proto.
enum class ProductPrecision { kOfDtype = 0, kFp32 = 1, kBf16 = 2 };

// A tensor in the caller's memory: row-major, contiguous, of any alignment. The bytes are sent from that memory without
// a copy, except in these cases, which copy once: tensors of at most 2 KiB over gRPC; pieces of a large call that take
// some of the heads of [batch, sequence, heads, head_dim]; tensors outside a SharedBuffer that go to a server through
// shared memory; and the tensors of a session's step over gRPC or through shared memory.
//
// The memory is borrowed until the call has ended. If `owner` is set, `owner` keeps it alive for as long as it is
// needed (a session's step ignores `owner`). The last reference to `owner` may be dropped on a gRPC thread, so its
// deleter must not block. A call does not end while gRPC still holds borrowed memory: if its deadline expires or it is
// cancelled while its bytes are being written to a peer that does not read, the call ends only when the bytes are
// written or the connection is given up (ClientOptions::keepalive_timeout).
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kFp32;
  std::array<std::int64_t, 4> sizes{};  // in the order of the request's layout
  std::shared_ptr<const void> owner = nullptr;
};

// The caller's memory for a result. Must stay valid until the call has ended.
struct Destination {
  void* data = nullptr;
  std::size_t size_bytes = 0;
};

// A result in memory that it owns. Copies share that memory, which is immutable. Thread-safe to read.
class Tensor {
 public:
  using Segment = absl::Span<const unsigned char>;

  Tensor() = default;
  // One contiguous segment, kept alive by `owner`.
  Tensor(DType dtype, std::array<std::int64_t, 4> sizes, Segment bytes, std::shared_ptr<const void> owner);
  // Several segments, in order.
  Tensor(DType dtype, std::array<std::int64_t, 4> sizes, std::vector<Segment> segments,
         std::shared_ptr<const void> owner);

  DType dtype() const { return dtype_; }
  const std::array<std::int64_t, 4>& sizes() const { return sizes_; }  // in the order of the request's layout
  std::size_t size_bytes() const { return size_bytes_; }

  // The elements, aligned for their type. Null if the tensor is empty or, only with ComputeRequest::output_in_segments,
  // if there are several segments or the only one is not aligned for the element type.
  const void* data() const;

  // The bytes in order, in one or more segments. A segment may begin and end inside an element.
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

// One batch of queries, keys and values. attnd/v1/attention.proto (ComputeAttentionRequest) has each field's exact
// meaning and range.
struct ComputeRequest {
  Bias bias = Bias::kOfTable;  // kNone: model, version, table and first_head must keep their defaults
  std::string model;           // name of a loaded model
  std::uint64_t version = 0;   // 0: the current one
  std::string table;           // "decoder" (also if empty), "encoder", "decoder.N", "encoder.N"

  TensorView q;  // [batch, heads, query_length, head_dim] in `layout`
  TensorView k;  // [batch, kv_heads, key_length, head_dim]; kv_heads divides heads (grouped-query attention)
  TensorView v;  // [batch, kv_heads, key_length, value_head_dim]
  Layout layout = Layout::kBatchHeadSequenceDim;

  Mask mask = Mask::kOfTable;
  std::optional<float> scale;                // factor of q.k; absent: 1
  std::optional<std::int64_t> query_offset;  // position of the first query; absent: key_length - query_length
  std::vector<std::int64_t> query_offsets;   // [batch] or empty; replaces query_offset
  std::vector<std::int64_t> query_lengths;   // [batch] or empty
  std::vector<std::int64_t> key_lengths;     // [batch] or empty; later keys are masked
  std::vector<std::int64_t> key_starts;      // [batch] or empty; earlier keys are masked
  std::vector<unsigned char> key_bits;       // which keys are real: made from a mask by PackKeyBits; or empty
  // The window: how far a key may be before and after its query; absent: no bound on that side. prefix_lengths is
  // described in the .proto file.
  std::optional<std::int64_t> window_left;
  std::optional<std::int64_t> window_right;
  std::vector<std::int64_t> prefix_lengths;  // [batch] or empty; first keys that a causal mask does not hide
  std::vector<float> key_bias;  // [heads, key_length] or empty; added to q.k in addition to the table's bias
  // Sequences packed into the rows of the batch: where each begins, counted over all rows laid end to end; see the
  // .proto file. key_segments may be empty if query_length equals key_length.
  std::vector<std::int64_t> query_segments;
  std::vector<std::int64_t> key_segments;
  // The sequence of k and v that each sequence of q reads, [batch]; or empty. With kv_rows, the batch of k and v may
  // differ from that of q. Put beams of one source next to each other: their keys are then read once.
  std::vector<std::int64_t> kv_rows;
  std::optional<std::int64_t> first_head;  // the table's head of query head 0; absent: the call has all heads
  ProductPrecision product_precision = ProductPrecision::kOfDtype;

  std::optional<DType> output_dtype;  // absent: the dtype of q, k and v
  bool return_log_sum_exp = false;

  // Where the results are written. Without a destination they are returned in ComputeReply, in memory of their own. A
  // destination must have exactly the result's size: batch * heads * query_length * value_head_dim elements of the
  // output's dtype, and batch * heads * query_length floats.
  Destination output;
  Destination log_sum_exp;
  // Without a destination: return the output in the segments in which it arrived instead of copying it into one. (A
  // call that travels in pieces, through shared memory or over the local socket always returns one segment.)
  bool output_in_segments = false;
};

// Converts a mask [batch, key_length] to ComputeRequest::key_bits. The mask has one byte for each key; 0 masks the key.
// Trailing bytes that do not fill a row are ignored. Empty if key_length is less than 1.
std::vector<unsigned char> PackKeyBits(absl::Span<const unsigned char> mask, std::int64_t key_length);

// How a call reached the server.
enum class Transport {
  kGrpc = 0,          // gRPC, tensors in the message
  kSharedMemory = 1,  // gRPC, tensors in shared memory (small ones may be in the message)
  kLocal = 2,         // the local socket; tensors in the message or in shared memory (docs/shared-memory.md, "Calls")
};

// The result of one call.
struct ComputeReply {
  Tensor output;                   // empty if written to ComputeRequest::output
  std::vector<float> log_sum_exp;  // [batch, heads, query_length]; empty if not requested or if it has a destination
  DType dtype = DType::kFp32;      // of the output
  std::uint64_t version = 0;       // of the model used; 0 with Bias::kNone
  std::string content_hash;        // of that version; empty with Bias::kNone
  // queue_time: from the request's arrival at the server to the start of its work; compute_time: from then until the
  // work was done. If the call travelled in pieces: the longest queue_time and the sum of the compute_times.
  absl::Duration queue_time;
  absl::Duration compute_time;
  std::int64_t pieces = 1;  // messages that the call travelled in; several are computed at once
  Transport transport = Transport::kGrpc;
};

}  // namespace attnd
