// Sessions: the server keeps keys and values, and a step sends the new tokens' alone (docs/sessions.md).
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

// An attention layer of the model; see attnd/v1/session.proto for each field's exact meaning and range.
struct SessionLayer {
  enum class Kind {
    kSelf = 1,   // keys and values belong to the rows: causal, with the bias of a table unless there is to be none
    kCross = 2,  // they belong to the sources, which rows share: every key is visible, and no bias is added
  };
  Kind kind = Kind::kSelf;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t kv_heads = 0;        // divides heads; 0: as many as heads
  std::int64_t value_head_dim = 0;  // 0: head_dim
  Bias bias = Bias::kOfTable;       // of a self layer
  std::string table;                // of a self layer with a bias: "decoder" (also if empty), "decoder.N"
  std::optional<float> scale;       // of q.k; absent: 1
};

// What a session is to keep.
struct SessionRequest {
  std::string model;          // name of a loaded model; empty if no layer has a bias
  std::uint64_t version = 0;  // 0: the current one, which the session keeps
  std::int64_t rows = 1;      // sequences that grow: batch times beams
  std::int64_t sources = 0;   // what rows attend across to, 1 to rows; 0 without cross layers
  std::vector<SessionLayer> layers;
  DType dtype = DType::kFp32;          // in which keys and values are kept
  std::int64_t max_tokens = 0;         // the most that a row may get; 0 without self layers
  std::int64_t max_source_tokens = 0;  // the most that a source may get; 0 without cross layers
  // The source of each row, [rows]. Empty: rows stand together by their sources, as many for each.
  std::vector<std::int64_t> row_sources;
};

// What the server said at the opening.
struct SessionFacts {
  std::uint64_t version = 0;  // of the model; 0 without one
  std::string content_hash;
  std::int64_t reserved_bytes = 0;                      // what the session holds of the server's memory
  std::int64_t page_tokens = 0;                         // memory is used page by page
  absl::Duration idle_time = absl::InfiniteDuration();  // without a step the session ends after this
  absl::Duration life_time = absl::InfiniteDuration();  // and after this in any case
  // The largest message that the server takes; 0 if it does not say. By gRPC a larger step is refused; over the local
  // socket tensors that fit into no message are in shared memory.
  std::int64_t max_message_bytes = 0;
  Transport transport = Transport::kGrpc;  // kGrpc or kLocal, for the session's whole life
};

// One step of one layer: rows change places and are cut, keys and values are appended, queries are answered, in this
// order and each if it is asked for.
struct StepRequest {
  std::int64_t layer = 0;  // its place in SessionRequest::layers

  std::vector<std::int64_t> reorder;           // [rows]: row r becomes what row reorder[r] was, in all self layers
  std::vector<std::int64_t> truncate;          // [rows]: the most tokens that each keeps, in all self layers
  std::vector<std::int64_t> expected_lengths;  // one for all or one each: tokens before the append; else an error
  std::vector<std::int64_t> key_starts;        // [rows]: first true key of each, from now on (padding on the left)
  std::vector<unsigned char> key_bits;         // of a cross layer: PackKeyBits of a mask [sources, key_bits_length]
  std::int64_t key_bits_length = 0;

  // Tensors without data are left out. They are not needed after the step, and have one dtype.
  TensorView q;  // [rows, heads, query_length, head_dim] in `layout`: of each row's last tokens
  TensorView k;  // [rows, of a cross layer sources; kv_heads, key_length, head_dim]: appended
  TensorView v;  // [the same, kv_heads, key_length, value_head_dim]
  std::vector<std::int64_t> query_lengths;  // [rows] or empty: how many of q are true
  std::vector<std::int64_t> key_lengths;    // [rows or sources] or empty: how many of k and v are true
  Layout layout = Layout::kBatchHeadSequenceDim;
  std::optional<DType> output_dtype;  // absent: that of q
  ProductPrecision product_precision = ProductPrecision::kOfDtype;
  bool return_log_sum_exp = false;

  // How long the server may take: DEADLINE_EXCEEDED after that, and nothing has been appended.
  absl::Duration timeout = absl::InfiniteDuration();
};

struct StepReply {
  Tensor output;                      // [rows, heads, query_length, value_head_dim]; empty without queries
  std::vector<float> log_sum_exp;     // [rows, heads, query_length]; empty if not asked for
  std::vector<std::int64_t> lengths;  // tokens of each row, or source, in the step's layer now
  std::int64_t used_bytes = 0;        // of pages that the session uses now
  absl::Duration queue_time, compute_time;
};

// A session that is open: Client::OpenSession makes one. What it keeps is free when it is closed or destroyed, and lost
// with its connection.
//
// Nothing is half done: a step that fails leaves the session as it was, and the next one goes on from there. Thread
// safety: steps may be made from several threads, and take turns. Tests of code that uses one derive from this.
class Session {
 public:
  virtual ~Session() = default;

  virtual const SessionFacts& facts() const = 0;

  // Makes a step and waits for its answer. Errors: INVALID_ARGUMENT, OUT_OF_RANGE (more tokens than the session was
  // opened for), FAILED_PRECONDITION (other lengths than were expected), RESOURCE_EXHAUSTED (no memory, or the step is
  // larger than the server's messages: make several of it), DEADLINE_EXCEEDED, each of which changes nothing. The
  // session is over after ABORTED (idle for too long, too old, or evicted), UNAVAILABLE (the connection, or the server,
  // is lost) and whatever else ends its stream: every step gives that error then.
  virtual absl::StatusOr<StepReply> Step(const StepRequest& request) = 0;

  // What is left of the session's time, as of when the server said that it stops; nullopt: it has not.
  virtual std::optional<absl::Duration> going_away() const = 0;

  // Ends the session and waits for the server's end, for some seconds at most (DEADLINE_EXCEEDED); steps are
  // FAILED_PRECONDITION then. A second time does nothing.
  virtual absl::Status Close() = 0;
};

// An open session, for operators.
struct OpenSessionInfo {
  std::uint64_t id = 0;
  std::string peer;   // as gRPC writes it: "ipv4:10.0.0.1:4242", "unix:"
  std::string model;  // empty without one
  std::uint64_t version = 0;
  std::int64_t rows = 0, sources = 0, layers = 0;
  std::int64_t reserved_bytes = 0, used_bytes = 0;
  std::uint64_t steps = 0;  // that were answered without an error
  absl::Duration age, idle;
};

}  // namespace attnd
