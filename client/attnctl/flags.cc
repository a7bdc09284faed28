#include "client/attnctl/flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(
    std::string, server, "",
    "ADDRESS: where attnd listens: host:port, unix:/path (ATTND_SERVER in the environment, else 127.0.0.1:50051)");
ABSL_FLAG(absl::Duration, timeout, absl::Minutes(5), "DURATION: give up after this long, e.g. 30s (5m)");
ABSL_FLAG(std::string, model, "", "MODEL: a loaded model (`attnctl models list` shows them); required");
ABSL_FLAG(std::uint64_t, version, 0, "N: insist on this version of the model (the current one)");
ABSL_FLAG(std::string, table, "", "NAME: decoder, encoder, decoder.N or encoder.N (decoder)");
ABSL_FLAG(std::string, mask, "", "causal|none: which keys a query may see (causal, unless the table is bidirectional)");
ABSL_FLAG(std::string, input, "", "FILE: safetensors with q, k and v; required");
ABSL_FLAG(std::string, output, "", "FILE: safetensors to write");
ABSL_FLAG(absl::optional<float>, scale, absl::nullopt, "X: factor of q.k (1, as T5 has it)");
ABSL_FLAG(absl::optional<std::int64_t>, query_offset, absl::nullopt,
          "N: position of the first query among the keys (number of keys - number of queries)");
ABSL_FLAG(std::vector<std::string>, query_lengths, {}, "A,B,C: true number of queries of each sequence (all)");
ABSL_FLAG(std::vector<std::string>, key_lengths, {}, "A,B,C: true number of keys of each sequence (all)");
ABSL_FLAG(std::string, layout, "bhsd",
          "bhsd|bshd: order of the axes, [batch, heads, sequence, dim] or [batch, sequence, heads, dim] (bhsd)");
ABSL_FLAG(std::string, output_dtype, "", "f32|f16|bf16: element type of the output (that of q)");
ABSL_FLAG(bool, lse, false, "also write `lse`, the log-sum-exp of each row's logits");
ABSL_FLAG(std::string, compare, "", "NAME: compare `o` with this tensor of the input and print the largest error");
ABSL_FLAG(absl::optional<double>, tolerance, absl::nullopt, "X: with --compare, fail if the error is larger");
ABSL_FLAG(std::int64_t, queries, 8, "N: number of queries, the rows (8)");
ABSL_FLAG(std::int64_t, keys, 0, "M: number of keys, the columns (as many as queries)");
ABSL_FLAG(std::int64_t, query_start, 0, "N: position of the first query (0)");
ABSL_FLAG(std::int64_t, key_start, 0, "N: position of the first key (0)");
ABSL_FLAG(absl::optional<std::int64_t>, head, absl::nullopt, "H: draw the values of this head instead of the buckets");
ABSL_FLAG(std::string, format, "text", "text|svg|json (text)");
ABSL_FLAG(std::string, explain, "", "Q,K: say in a sentence what the bias of this query and key is, and why");
ABSL_FLAG(std::string, out, "", "FILE: write there (standard output)");
ABSL_FLAG(std::string, name, "", "NAME: name to give the model (the folder's name, or the file's without its ending)");
ABSL_FLAG(bool, replace, false, "replace a table of the same name");
ABSL_FLAG(bool, verbose, false, "show more");
ABSL_FLAG(bool, json, false, "print JSON");
