// attnctl's flags. Each is defined once, with its name, value, help and default.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "client/attnctl/flag_kinds.h"
#include "reservation/session_bytes.h"
#include "tensor/dtype.h"

namespace attnd::ctl {

enum class Format { kText, kSvg, kJson };  // a command may accept only some: Command::narrowed
enum class AxisScale { kAuto, kLinear, kLog };

// A set of values, initially the defaults. Not thread-safe.
struct Flags {
  FlagList common;  // taken by every command
  FlagList own;     // taken by the commands that list them
  FlagList plan;    // replaces own's flags of the same names in `sessions plan` (Command::instead)

  // Finds a flag in `common` and `own`; null if there is none.
  Flag* Find(absl::string_view name) const;

  using Number = ValueFlag<std::int64_t>;
  // Ranges of positions and counts: no position is larger (contract/request.h).
  static constexpr Range<std::int64_t> kCount{0, std::numeric_limits<std::int32_t>::max()};
  static constexpr Range<std::int64_t> kSize{1, std::numeric_limits<std::int32_t>::max()};
  static constexpr Range<std::int64_t> kLayers{0, reservation::kMostLayers};

  TextFlag server{common, "server", "ADDRESS", "where attnd listens: host:port, unix:/path",
                  "ATTND_SERVER in the environment, else 127.0.0.1:50051"};
  ValueFlag<absl::Duration> timeout{common,
                                    "timeout",
                                    "DURATION",
                                    absl::Minutes(5),
                                    "give up after this long, e.g. 30s",
                                    "5m",
                                    NoLessThan(absl::Milliseconds(1))};
  ValueFlag<absl::Duration> retry_for{common,
                                      "retry_for",
                                      "DURATION",
                                      absl::ZeroDuration(),
                                      "keep trying for this long while the server cannot be reached or is restarting",
                                      "0: one attempt"};

  // The model, bias, table and mask of a call.
  TextFlag model{own, "model", "MODEL",
                 "a loaded model (`attnctl models list` shows them); required, unless --bias is none"};
  ChoiceFlag<Bias> bias{own,
                        "bias",
                        {{"none", Bias::kNone}},
                        Bias::kOfTable,
                        "add none; then --model, --table and --version are left out",
                        "that of the model's table"};
  ValueFlag<std::uint64_t> version{own, "version", "N", 0, "insist on this version of the model", "the current one"};
  TextFlag table{own, "table", "NAME", "decoder, encoder, decoder.N or encoder.N", "decoder"};
  ChoiceFlag<Mask> mask{own,
                        "mask",
                        {{"causal", Mask::kCausal}, {"none", Mask::kNone}},
                        Mask::kOfTable,
                        "which keys a query may see",
                        "causal, unless the table is bidirectional"};

  // Attention.
  TextFlag input{own, "input", "FILE", "safetensors with q, k and v; required"};
  TextFlag output{own, "output", "FILE", "safetensors to write; `-` is standard output"};
  OptionalFlag<float> scale{own, "scale", "X", "factor of q.k", "1, as T5 has it"};
  OptionalFlag<std::int64_t> query_offset{own, "query_offset", "N", "position of the first query among the keys",
                                          "number of keys - number of queries"};
  NumbersFlag query_offsets{own, "query_offsets", "A,B,C", "position of the first query of each sequence",
                            "--query_offset for all"};
  NumbersFlag query_lengths{own, "query_lengths", "A,B,C", "true number of queries of each sequence", "all", kCount};
  NumbersFlag key_lengths{own, "key_lengths", "A,B,C", "true number of keys of each sequence", "all", kCount};
  NumbersFlag key_starts{own, "key_starts", "A,B,C", "first true key of each sequence", "0 for all", kCount};
  TextFlag key_mask{own, "key_mask", "NAME",
                    "tensor of the input, [batch, keys] of BOOL or integers 0 and 1, that says which keys are true",
                    "all are"};
  OptionalFlag<std::int64_t> window_left{own, "window_left", "N", "most that a key may stand before a query",
                                         "any distance"};
  OptionalFlag<std::int64_t> window_right{own, "window_right", "N", "most that a key may stand after a query",
                                          "any distance"};
  NumbersFlag prefix_lengths{own,         "prefix_lengths",
                             "A,B,C",     "first keys of each sequence that a causal mask does not hide",
                             "0 for all", kCount};
  TextFlag key_bias{own, "key_bias", "NAME", "tensor of the input, [heads, keys], that is added to q.k for each key",
                    "none is"};
  NumbersFlag query_segments{
      own,        "query_segments",
      "A,B,C",    "where the queries of sequences begin that are packed into the rows of the batch",
      "none are", kCount};
  NumbersFlag key_segments{own, "key_segments", "A,B,C", "where their keys begin", "as the queries", kCount};
  NumbersFlag kv_rows{
      own, "kv_rows", "A,B,C", "the sequence of k and v that each sequence of q reads", "each its own", kCount};
  ChoiceFlag<Layout> layout{own,
                            "layout",
                            {{"bhsd", Layout::kBatchHeadSequenceDim}, {"bshd", Layout::kBatchSequenceHeadDim}},
                            Layout::kBatchHeadSequenceDim,
                            "order of the axes, [batch, heads, sequence, dim] or [batch, sequence, heads, dim]",
                            "bhsd"};
  ChoiceFlag<std::optional<DType>> output_dtype{own,
                                                "output_dtype",
                                                {{"f32", DType::kFp32}, {"f16", DType::kFp16}, {"bf16", DType::kBf16}},
                                                std::nullopt,
                                                "element type of the output",
                                                "that of q"};
  Switch lse{own, "lse", "also write `lse`, the log-sum-exp of each row's logits"};
  Switch grpc_only{own, "grpc_only", "call by gRPC, also where the server takes calls over its local socket"};
  TextFlag compare{own, "compare", "NAME", "compare `o` with this tensor of the input and print the largest error"};
  OptionalFlag<double> tolerance{
      own, "tolerance", "X", "with --compare, fail if the error is larger", "any error is accepted", NoLessThan(0.0)};

  // A window of a bias.
  Number queries{own, "queries", "N", 8, "number of queries, the rows", "8", kSize};
  Number keys{own, "keys", "M", 0, "number of keys, the columns", "as many as queries", kSize};
  Number query_start{own, "query_start", "N", 0, "position of the first query", "0", kCount};
  Number key_start{own, "key_start", "N", 0, "position of the first key", "0", kCount};
  OptionalFlag<std::int64_t> head{own,       "head", "H", "draw the values of this head instead of the buckets",
                                  "buckets", kCount};
  HeadsFlag heads{own, "heads", "all|A,B,C", "the values of all heads, or of these, side by side on one scale",
                  "`bias`: buckets; `bias compare`: all"};
  ChoiceFlag<Format> format{own,
                            "format",
                            {{"text", Format::kText}, {"svg", Format::kSvg}, {"json", Format::kJson}},
                            Format::kText,
                            "form of what is printed",
                            "text"};
  TextFlag explain{own, "explain", "Q,K",
                   "say in a sentence, or as JSON, what the bias of this query and key is, and why"};
  TextFlag out{own, "out", "FILE", "write there", "standard output"};

  // A comparison of biases.
  OptionalFlag<std::int64_t> max_offset{own, "max_offset", "N", "the largest offset shown",
                                        "4 x the longest max distance, table or trained length"};
  OptionalFlag<std::int64_t> trained_length{own, "trained_length", "N",
                                            "mark this length, and tell offsets within it from those beyond"};
  ChoiceFlag<AxisScale> axis{own,
                             "axis",
                             {{"auto", AxisScale::kAuto}, {"linear", AxisScale::kLinear}, {"log", AxisScale::kLog}},
                             AxisScale::kAuto,
                             "scale of the picture's offsets",
                             "auto: log beyond 64"};

  // The shape of a session, and the budget for it.
  Number rows{own, "rows", "N", 1, "rows of a session: batch x beams", "1", {1, reservation::kMostRows}};
  OptionalFlag<std::int64_t> sources{own,
                                     "sources",
                                     "N",
                                     "sources that the rows attend across to: inputs of the batch",
                                     "1 with cross layers, else 0",
                                     {0, reservation::kMostRows}};
  Number self_layers{own, "self_layers", "N", 0, "layers that keep keys and values of each row", "0", kLayers};
  Number cross_layers{own, "cross_layers", "N", 0, "layers that keep those of each source", "0", kLayers};
  OptionalFlag<std::int64_t> max_tokens{own, "max_tokens", "N", "most tokens of a row; required with --self_layers",
                                        "",  kSize};
  OptionalFlag<std::int64_t> max_source_tokens{
      own, "max_source_tokens", "N", "most tokens of a source; required with --cross_layers", "", kSize};
  OptionalFlag<std::int64_t> layer_heads{plan, "heads", "N", "query heads of a layer; --kv_heads may stand for it",
                                         "",   kSize};
  OptionalFlag<std::int64_t> kv_heads{
      own, "kv_heads", "N", "key and value heads of a layer, which divide --heads", "as many as --heads", kSize};
  OptionalFlag<std::int64_t> head_dim{own, "head_dim", "N", "elements of a head's key; required", "", kSize};
  OptionalFlag<std::int64_t> value_head_dim{own,  "value_head_dim", "N", "elements of a head's value", "--head_dim",
                                            kSize};
  ChoiceFlag<tensor::DType> dtype{
      own,
      "dtype",
      {{"f32", tensor::DType::kF32}, {"f16", tensor::DType::kF16}, {"bf16", tensor::DType::kBF16}},
      tensor::DType::kF32,
      "element type in which keys and values are kept",
      "f32"};
  OptionalFlag<ByteCount> budget{own, "budget", "SIZE",
                                 "memory to plan for, as attnd's --max_inflight_bytes, e.g. 4GiB",
                                 "what the server has, and what is in use there"};

  // Models and the server.
  TextFlag name{own, "name", "NAME", "name to give the model", "the folder's name, or the file's without its ending"};
  Switch replace{own, "replace", "replace a table of the same name"};
  TextFlag service{own, "service", "NAME", "ask about this service, e.g. attnd.v1.AttentionService or liveness",
                   "the server as a whole"};
  Switch verbose{own, "verbose", "show more"};
  Switch names{own, "names", "print the names of the loaded models alone, each on its line"};
  Switch ids{own, "ids", "print the numbers of the open sessions alone, each on its line"};
  Switch json{own, "json", "the same as --format json"};

  bool WantsJson() const { return json.value() || format.value() == Format::kJson; }
};

}  // namespace attnd::ctl
