// Models as a server describes them, and the server's own facts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "attnd/attention.h"

namespace attnd {

// T5's rule: one value per bucket and head. The book's nb, dist_max form is num_buckets = nb + 1,
// max_distance = dist_max.
struct T5Buckets {
  std::int64_t num_buckets = 0;
  std::int64_t max_distance = 0;
  std::vector<float> values;  // [num_buckets, heads]; empty in listings
};

// ALiBi (Press et al. 2022): bias = -slope * |offset|.
struct AlibiSlopes {
  std::vector<float> slopes;  // [heads]; empty in listings
};

// One value for each offset from min_offset on; the nearer end's value outside.
struct PerOffset {
  std::int64_t min_offset = 0;
  std::vector<float> values;  // [heads, count], by ascending offset; empty in listings
};

// One bias table of a model.
struct Table {
  std::string name;  // "decoder", "encoder", "decoder.N", "encoder.N"
  std::int64_t heads = 0;
  bool bidirectional = false;  // keys after the query have biases of their own
  std::variant<T5Buckets, AlibiSlopes, PerOffset> rule;
};

// A loaded model.
struct Model {
  std::string name;
  std::uint64_t version = 0;  // counts loads under this name, from 1
  std::int64_t heads = 0;
  std::vector<Table> tables;
  std::string source;        // "embedded", "upload", or its path below the server's model root
  std::string format;        // "huggingface", "gguf", "json", "upload"
  std::string architecture;  // "t5", "mt5", "umt5"; may be empty
  std::string content_hash;  // SHA-256 of the tables, in hex
  absl::Time loaded_at;
};

// What stands in the server's model root and could not be loaded at its start.
struct FailedModel {
  std::string name;    // that it would have
  std::string path;    // below the server's model root; "." for the root itself
  std::string reason;  // of one line
};

// What a server has.
struct ModelList {
  std::vector<Model> models;        // in order of name, without values
  std::vector<FailedModel> failed;  // by path; the first 1000
};

// Asks for the bias of a window of queries and keys.
struct BiasRequest {
  std::string model;
  std::uint64_t version = 0;     // 0: the current one
  std::string table;             // as ComputeRequest::table
  std::int64_t query_start = 0;  // position of the first query
  std::int64_t query_count = 0;
  std::int64_t key_start = 0;  // position of the first key
  std::int64_t key_count = 0;
  Mask mask = Mask::kOfTable;
  std::vector<std::int64_t> heads;  // to return values for; empty: all
};

// The offsets of a bucket, as the table puts them there wherever they occur: not only those of a window. Without an end
// there is none.
struct BucketRange {
  std::int32_t bucket = 0;
  std::optional<std::int64_t> min_offset, max_offset;
};

// The bias of a window, row-major by (query, key).
struct BiasReply {
  std::uint64_t version = 0;
  std::string content_hash;
  std::string table;  // the one that was used
  // Mask that was applied: kCausal or kNone. Where it is causal, cells with a negative offset have bucket -1, value 0.
  Mask mask = Mask::kNone;
  std::vector<std::int64_t> offsets;  // [query_count, key_count]: query position - key position
  std::vector<std::int32_t> buckets;  // [query_count, key_count]; empty if the table has no buckets
  std::vector<std::int64_t> heads;    // whose values follow
  std::vector<float> values;          // [heads, query_count, key_count]
  // Of each bucket that `buckets` names, in the order of buckets; empty from a server of before this field.
  std::vector<BucketRange> bucket_ranges;
};

// Limits in force on a server; see Limits in attnd/v1/server.proto.
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
  std::int64_t max_peer_connections = 0;  // 0: as many as stay free for others
  std::int64_t max_connection_streams = 0;
  std::int64_t max_reads = 0;
};

// Whether a server's process shows that a setting has its effect; see SettingState in attnd/v1/server.proto.
enum class SettingState { kUnspecified = 0, kInForce = 1, kNotInForce = 2, kRequested = 3 };

// A setting for speed.
struct Setting {
  std::string name;  // e.g. "huge_pages"
  SettingState state = SettingState::kUnspecified;
  std::string detail;  // what was found, in words
};

// How much of a limit on memory is in use, and what was refused since the server's start; see MemoryUse in
// attnd/v1/server.proto.
struct MemoryUse {
  std::int64_t total_bytes = 0;
  std::int64_t used_bytes = 0;
  std::int64_t peak_bytes = 0;
  std::int64_t free_bytes = 0;
  std::int64_t peers = 0;  // that hold something
  std::int64_t largest_peer_bytes = 0;
  std::int64_t refused_by_total = 0;
  std::int64_t refused_by_share = 0;
  std::int64_t refused_as_never_fitting = 0;
  std::int64_t max_peer_bytes = 0;  // that one peer can have; 0 from a server that is older than this field
};

// Calls that the server has ended because their other end stood still.
struct StalledCalls {
  std::int64_t writes = 0;  // a result was not taken in time
  std::int64_t reads = 0;   // a request did not arrive in time
};

// Calls that wait to be computed, and what became of calls because there were too many; see QueueUse in
// attnd/v1/server.proto.
struct QueueUse {
  std::int64_t waiting = 0;  // now
  std::int64_t refused = 0;  // since the server's start, as is
  std::int64_t expired = 0;
};

// Sessions of a server (attnd/session.h); see SessionUse in attnd/v1/server.proto.
struct SessionUse {
  std::int64_t open = 0;               // now
  std::int64_t evicted = 0;            // since the server's start
  std::int64_t max_sessions = 0;       // that may be open
  std::int64_t max_peer_sessions = 0;  // of one peer
};

// A server's facts.
struct ServerInfo {
  std::string version;
  std::string kernel;                          // in use, e.g. "x86-64-v4"
  std::vector<std::string> available_kernels;  // best first
  std::int64_t threads = 0;
  absl::Time started_at;
  Limits limits;
  std::vector<Setting> settings;  // what the server's speed rests on, as found at its start
  bool local_calls = false;       // whether the sockets beside its Unix sockets take calls
  // In use when the server answered; nullopt from a server of before these fields.
  std::optional<MemoryUse> memory;         // of Limits::max_inflight_bytes
  std::optional<MemoryUse> shared_memory;  // of Limits::max_shared_bytes; nullopt too if it shares no memory
  StalledCalls stalled_calls;
  QueueUse queue;
  std::int64_t model_bytes = 0;        // memory that the tables of all models hold now
  std::optional<SessionUse> sessions;  // nullopt from a server that has none
};

}  // namespace attnd
