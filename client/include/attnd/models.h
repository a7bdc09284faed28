// Descriptions of models and of the server.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "attnd/attention.h"

namespace attnd {

// T5's rule: one value per bucket and head. For the book's nb and dist_max, num_buckets = nb + 1 and max_distance =
// dist_max.
struct T5Buckets {
  std::int64_t num_buckets = 0;
  std::int64_t max_distance = 0;
  std::vector<float> values;  // [num_buckets, heads]; empty in listings
};

// ALiBi (Press et al. 2022): bias = -slope * |offset|.
struct AlibiSlopes {
  std::vector<float> slopes;  // [heads]; empty in listings
};

// One value for each offset from min_offset on. Offsets outside the range use the value at the nearer end.
struct PerOffset {
  std::int64_t min_offset = 0;
  std::vector<float> values;  // [heads, count], in ascending order of offset; empty in listings
};

// One bias table of a model.
struct Table {
  std::string name;  // "decoder", "encoder", "decoder.N", "encoder.N"
  std::int64_t heads = 0;
  bool bidirectional = false;  // keys after the query have their own biases
  std::variant<T5Buckets, AlibiSlopes, PerOffset> rule;
};

// A loaded model.
struct Model {
  std::string name;
  std::uint64_t version = 0;  // counts the loads under this name, from 1
  std::int64_t heads = 0;
  std::vector<Table> tables;
  std::string source;        // "embedded", "upload", or its path below the server's model root
  std::string format;        // "huggingface", "gguf", "json", "upload"
  std::string architecture;  // "t5", "mt5", "umt5"; may be empty
  std::string content_hash;  // SHA-256 of the tables, in hex
  absl::Time loaded_at;
};

// A model in the server's model root that could not be loaded when the server started.
struct FailedModel {
  std::string name;    // the name that the model would have
  std::string path;    // below the server's model root; "." for the root itself
  std::string reason;  // one line
};

// The models of a server.
struct ModelList {
  std::vector<Model> models;        // sorted by name, without values
  std::vector<FailedModel> failed;  // sorted by path, at most 1000
};

// A request for the bias of a window of queries and keys.
struct BiasRequest {
  std::string model;
  std::uint64_t version = 0;     // 0: the current one
  std::string table;             // as ComputeRequest::table
  std::int64_t query_start = 0;  // position of the first query
  std::int64_t query_count = 0;
  std::int64_t key_start = 0;  // position of the first key
  std::int64_t key_count = 0;
  Mask mask = Mask::kOfTable;
  std::vector<std::int64_t> heads;  // heads to return values for; empty: all
};

// All offsets that the table maps to a bucket, not only those inside a window. An absent end means unbounded.
struct BucketRange {
  std::int32_t bucket = 0;
  std::optional<std::int64_t> min_offset, max_offset;
};

// The bias of a window, row-major by (query, key).
struct BiasReply {
  std::uint64_t version = 0;
  std::string content_hash;
  std::string table;  // the table used
  // The mask applied: kCausal or kNone. With kCausal, cells with a negative offset have bucket -1 and value 0.
  Mask mask = Mask::kNone;
  std::vector<std::int64_t> offsets;  // [query_count, key_count]: query position - key position
  std::vector<std::int32_t> buckets;  // [query_count, key_count]; empty if the table has no buckets
  std::vector<std::int64_t> heads;    // the heads of `values`
  std::vector<float> values;          // [heads, query_count, key_count]
  // The range of each bucket in `buckets`, in order of bucket; empty if the server is older than this field.
  std::vector<BucketRange> bucket_ranges;
};

// The limits of a server; see Limits in attnd/v1/server.proto.
struct Limits {
  std::int64_t max_request_bytes = 0;
  std::int64_t max_result_bytes = 0;
  std::int64_t max_dim = 0;
  std::int64_t max_head_dim = 0;
  std::int64_t max_models = 0;
  std::int64_t max_table_values = 0;
  std::int64_t max_bias_cells = 0;
  std::int64_t max_model_file_bytes = 0;
  std::int64_t max_page_size = 0;
  std::int64_t max_inflight_bytes = 0;
  std::int64_t max_header_bytes = 0;
  std::int64_t max_shared_bytes = 0;  // 0: this server shares no memory
  std::int64_t max_model_bytes = 0;
  std::int64_t max_total_model_bytes = 0;
  std::int64_t max_connections = 0;
  std::int64_t max_peer_connections = 0;  // 0: one peer may have as many as stay free for others
  std::int64_t max_connection_streams = 0;
  std::int64_t max_reads = 0;
};

// Whether the server's process has seen a setting take effect; see SettingState in attnd/v1/server.proto.
enum class SettingState { kUnspecified = 0, kInForce = 1, kNotInForce = 2, kRequested = 3 };

// A setting that affects speed.
struct Setting {
  std::string name;  // e.g. "huge_pages"
  SettingState state = SettingState::kUnspecified;
  std::string detail;  // what was found, as text
};

// Use of a memory limit, and the requests refused because of it since the server's start; see MemoryUse in
// attnd/v1/server.proto.
struct MemoryUse {
  std::int64_t total_bytes = 0;
  std::int64_t used_bytes = 0;
  std::int64_t peak_bytes = 0;
  std::int64_t free_bytes = 0;
  std::int64_t peers = 0;  // peers that hold memory
  std::int64_t largest_peer_bytes = 0;
  std::int64_t refused_by_total = 0;
  std::int64_t refused_by_share = 0;
  std::int64_t refused_as_never_fitting = 0;
  std::int64_t max_peer_bytes = 0;  // the most that one peer can hold; 0 if the server is older than this field
};

// Calls that the server ended because the peer stalled.
struct StalledCalls {
  std::int64_t writes = 0;  // results not read in time
  std::int64_t reads = 0;   // requests that did not arrive in time
};

// Calls that wait to be received or computed, and calls refused or expired under overload; see QueueUse in
// attnd/v1/server.proto.
struct QueueUse {
  std::int64_t waiting = 0;  // now
  std::int64_t refused = 0;  // since the server's start, like expired
  std::int64_t expired = 0;
};

// Sessions of a server (attnd/session.h); see SessionUse in attnd/v1/server.proto.
struct SessionUse {
  std::int64_t open = 0;               // now
  std::int64_t evicted = 0;            // since the server's start
  std::int64_t max_sessions = 0;       // limit of open sessions
  std::int64_t max_peer_sessions = 0;  // limit of open sessions of one peer
};

// Version, configuration and state of a server.
struct ServerInfo {
  std::string version;
  std::string kernel;                          // the kernel in use, e.g. "x86-64-v4"
  std::vector<std::string> available_kernels;  // best first
  std::int64_t threads = 0;
  absl::Time started_at;
  Limits limits;
  std::vector<Setting> settings;  // settings that affect speed, as found at the server's start
  bool local_calls = false;       // whether the sockets next to its Unix sockets accept attention calls
  // Memory use at the time of the reply; nullopt if the server is older than these fields.
  std::optional<MemoryUse> memory;         // of Limits::max_inflight_bytes
  std::optional<MemoryUse> shared_memory;  // of Limits::max_shared_bytes; also nullopt if the server shares no memory
  StalledCalls stalled_calls;
  QueueUse queue;
  std::int64_t model_bytes = 0;        // memory that the tables of all models use now
  std::optional<SessionUse> sessions;  // nullopt if the server is older than this field
};

}  // namespace attnd
