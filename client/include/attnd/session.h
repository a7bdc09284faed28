// Sessions: the server keeps keys and values, and a step sends only those of the new tokens (docs/sessions.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/attention.h"

namespace attnd {

// An attention layer of the model. attnd/v1/session.proto has each field's exact meaning and range.
struct SessionLayer {
  enum class Kind {
    kSelf = 1,   // keys and values belong to the rows; causal, with the bias of a table unless `bias` is kNone
    kCross = 2,  // keys and values belong to the sources, which rows share; no mask, no bias
  };
  Kind kind = Kind::kSelf;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t kv_heads = 0;        // divides heads; 0: heads
  std::int64_t value_head_dim = 0;  // 0: head_dim
  Bias bias = Bias::kOfTable;       // of a self layer
  std::string table;                // of a self layer with a bias: "decoder" (also if empty), "decoder.N"
  std::optional<float> scale;       // of q.k; absent: 1
};

// What a session keeps.
struct SessionRequest {
  std::string model;          // name of a loaded model; empty if no layer has a bias
  std::uint64_t version = 0;  // 0: the current one, which the session keeps
  std::int64_t rows = 1;      // growing sequences: batch times beams
  std::int64_t sources = 0;   // encoder outputs that rows attend to, 1 to rows; 0 without cross layers
  std::vector<SessionLayer> layers;
  DType dtype = DType::kFp32;          // of the kept keys and values
  std::int64_t max_tokens = 0;         // maximum for each row; 0 without self layers
  std::int64_t max_source_tokens = 0;  // maximum for each source; 0 without cross layers
  // The source of each row, [rows]. Empty: consecutive rows share a source, the same number of rows for each.
  std::vector<std::int64_t> row_sources;
};

// The server's reply to the opening.
struct SessionFacts {
  std::uint64_t version = 0;  // of the model; 0 without one
  std::string content_hash;
  std::int64_t reserved_bytes = 0;                      // server memory reserved for the session
  std::int64_t page_tokens = 0;                         // tokens in a page; memory is used page by page
  absl::Duration idle_time = absl::InfiniteDuration();  // the session ends after this time without a step
  absl::Duration life_time = absl::InfiniteDuration();  // the session ends after this time in any case
  // The largest message that the server accepts; 0 if it does not say. Over gRPC a larger step is refused; over the
  // local socket, tensors that do not fit into a message are passed in shared memory.
  std::int64_t max_message_bytes = 0;
  Transport transport = Transport::kGrpc;  // kGrpc or kLocal, for the session's whole life
};

// One step of one layer. Its parts are optional and run in this order: reorder, truncate, append keys and values,
// answer queries.
struct StepRequest {
  std::int64_t layer = 0;  // index into SessionRequest::layers

  std::vector<std::int64_t> reorder;           // [rows]: row r continues row reorder[r], in all self layers
  std::vector<std::int64_t> truncate;          // [rows]: maximum number of tokens to keep in each, in all self layers
  std::vector<std::int64_t> expected_lengths;  // one for all or one each; other counts before the append are an error
  std::vector<std::int64_t> key_starts;        // [rows]: first real key of each, from now on (padding on the left)
  std::vector<unsigned char> key_bits;         // cross layers only: PackKeyBits of a mask [sources, key_bits_length]
  std::int64_t key_bits_length = 0;

  // Tensors without data are omitted. All have the same dtype. Their memory is borrowed until the step returns.
  TensorView q;  // [rows, heads, query_length, head_dim] in `layout`: queries of each row's last tokens
  TensorView k;  // appended: [rows, or sources of a cross layer; kv_heads, key_length, head_dim]
  TensorView v;  // [as k, kv_heads, key_length, value_head_dim]
  std::vector<std::int64_t> query_lengths;  // [rows] or empty: how many of q are real
  std::vector<std::int64_t> key_lengths;    // [rows or sources] or empty: how many of k and v are real
  Layout layout = Layout::kBatchHeadSequenceDim;
  std::optional<DType> output_dtype;  // absent: the dtype of q
  ProductPrecision product_precision = ProductPrecision::kOfDtype;
  bool return_log_sum_exp = false;

  // How long the server may take. After that the step fails with DEADLINE_EXCEEDED and nothing has been appended. If
  // the server has not answered 5 s later, the session ends with DEADLINE_EXCEEDED.
  absl::Duration timeout = absl::InfiniteDuration();
};

struct StepReply {
  Tensor output;                      // [rows, heads, query_length, value_head_dim]; empty without queries
  std::vector<float> log_sum_exp;     // [rows, heads, query_length]; empty if not requested
  std::vector<std::int64_t> lengths;  // tokens of each row, or source, in the step's layer after the step
  std::int64_t used_bytes = 0;        // memory of the pages that the session uses now
  absl::Duration queue_time, compute_time;
};

// An open session, created by Client::OpenSession. Closing or destroying it frees what it keeps; if its connection is
// lost, so is what it keeps.
//
// A step that fails leaves the session as it was, and the next step continues from there. Thread safety: steps may be
// made from several threads and run one at a time. To test code that uses a session, derive a fake from this class.
class Session {
 public:
  virtual ~Session() = default;

  virtual const SessionFacts& facts() const = 0;

  // Makes a step and waits for its reply. After these errors nothing has changed: INVALID_ARGUMENT, OUT_OF_RANGE (more
  // tokens than the session was opened for), FAILED_PRECONDITION (lengths differ from expected_lengths),
  // RESOURCE_EXHAUSTED (no memory, or the step is larger than the server's messages: split it), DEADLINE_EXCEEDED (the
  // server did not finish within `timeout`). ABORTED (idle for too long, too old, or evicted), UNAVAILABLE (the
  // connection or the server is lost) and any other error that ends the stream end the session: every further step
  // returns that error.
  virtual absl::StatusOr<StepReply> Step(const StepRequest& request) = 0;

  // The session's remaining time as the server reported it when it began to stop; nullopt if the server is not
  // stopping.
  virtual std::optional<absl::Duration> going_away() const = 0;

  // Ends the session and waits until the server has ended it, for at most 5 s (DEADLINE_EXCEEDED). Further steps return
  // FAILED_PRECONDITION. A second Close() does nothing.
  virtual absl::Status Close() = 0;
};

// An open session, for operators.
struct OpenSessionInfo {
  std::uint64_t id = 0;
  std::string peer;   // as gRPC writes it: "ipv4:10.0.0.1:4242", "unix:"
  std::string model;  // empty without a model
  std::uint64_t version = 0;
  std::int64_t rows = 0, sources = 0, layers = 0;
  std::int64_t reserved_bytes = 0, used_bytes = 0;
  std::uint64_t steps = 0;  // answered without an error
  absl::Duration age, idle;
};

}  // namespace attnd
