#include "client/attnctl/commands/attend.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/attnctl/attention_result.h"
#include "client/attnctl/output.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"
#include "client/attnctl/tensors.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

// The tensors of the input file.
struct Input {
  LoadedTensor q, k, v;
  std::vector<unsigned char> key_bits;    // from --key_mask
  std::vector<float> key_bias;            // from --key_bias
  std::optional<LoadedTensor> reference;  // from --compare
};

absl::StatusOr<Input> ReadInput(const Flags& flags) {
  const std::string& path = flags.input.value();
  const absl::StatusOr<files::SafetensorsFile> file = OpenSafetensors(path);
  if (!file.ok()) return file.status();
  Input input;
  for (const auto& [name, tensor] : {std::pair{"q", &input.q}, std::pair{"k", &input.k}, std::pair{"v", &input.v}}) {
    absl::StatusOr<LoadedTensor> loaded = LoadTensor(*file, path, name);
    if (!loaded.ok()) return loaded.status();
    *tensor = *std::move(loaded);
  }
  const bool heads_first = flags.layout.value() == Layout::kBatchHeadSequenceDim;
  const std::int64_t keys = input.k.sizes[heads_first ? 2 : 1];
  if (const std::string& name = flags.key_mask.value(); !name.empty()) {
    absl::StatusOr<std::vector<unsigned char>> loaded = LoadKeyBits(*file, path, name, input.k.sizes[0], keys);
    if (!loaded.ok()) return loaded.status();
    input.key_bits = *std::move(loaded);
  }
  if (const std::string& name = flags.key_bias.value(); !name.empty()) {
    absl::StatusOr<std::vector<float>> loaded =
        LoadKeyBias(*file, path, name, input.q.sizes[heads_first ? 1 : 2], keys);
    if (!loaded.ok()) return loaded.status();
    input.key_bias = *std::move(loaded);
  }
  if (const std::string& name = flags.compare.value(); !name.empty()) {
    absl::StatusOr<LoadedTensor> loaded = LoadTensor(*file, path, name);
    if (!loaded.ok()) return loaded.status();
    input.reference = *std::move(loaded);
  }
  return input;
}

absl::Status CheckFlags(const Flags& flags) {
  const bool without_bias = flags.bias.value() == Bias::kNone;
  const std::string &input = flags.input.value(), &output = flags.output.value();
  if (without_bias && !flags.model.value().empty()) return UsageError("--bias none goes without --model");
  if (!without_bias && flags.model.value().empty()) {
    return UsageError("`attnctl attend` needs --model, or --bias none",
                      "write `--model MODEL`; `attnctl models list` shows which there are");
  }
  if (input.empty()) {
    return UsageError("`attnctl attend` needs --input", "write `--input FILE`, a safetensors file with q, k and v");
  }
  if (output.empty() && flags.compare.value().empty()) {
    return UsageError("`attnctl attend` needs --output, or --compare with a tensor of the input",
                      "write `--output FILE`, or `--output -` for standard output");
  }
  if (flags.tolerance.value().has_value() && flags.compare.value().empty()) {
    return UsageError("--tolerance is for --compare", "write `--compare NAME` too, or leave --tolerance out");
  }
  if (output.empty()) return absl::OkStatus();
  if (IsSameFile(input, output)) {
    return UsageError(absl::StrCat("--output: expected another file than --input, got ", Shown(output),
                                   input == output ? "" : absl::StrCat(", which is the file ", Shown(input))),
                      "q, k and v would be lost: name another file with --output");
  }
  return CheckOutput(output);
}

// The request that the flags describe, without tensors.
ComputeRequest RequestOf(const Flags& flags) {
  ComputeRequest request;
  request.bias = flags.bias.value();
  request.model = flags.model.value();
  request.version = flags.version.value();
  request.table = flags.table.value();
  request.mask = flags.mask.value();
  request.scale = flags.scale.value();
  request.query_offset = flags.query_offset.value();
  request.query_offsets = flags.query_offsets.value();
  request.query_lengths = flags.query_lengths.value();
  request.key_lengths = flags.key_lengths.value();
  request.key_starts = flags.key_starts.value();
  request.window_left = flags.window_left.value();
  request.window_right = flags.window_right.value();
  request.prefix_lengths = flags.prefix_lengths.value();
  request.query_segments = flags.query_segments.value();
  request.key_segments = flags.key_segments.value();
  request.kv_rows = flags.kv_rows.value();
  request.layout = flags.layout.value();
  request.output_dtype = flags.output_dtype.value();
  request.return_log_sum_exp = flags.lse.value();
  return request;
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  if (absl::Status s = CheckFlags(flags); !s.ok()) return s;
  ComputeRequest request = RequestOf(flags);
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();

  Progress progress("reading " + flags.input.value());
  absl::StatusOr<Input> input = ReadInput(flags);
  if (!input.ok()) return input.status();
  request.q = input->q.view();
  request.k = input->k.view();
  request.v = input->v.view();
  request.key_bits = std::move(input->key_bits);
  request.key_bias = std::move(input->key_bias);

  progress.Next("computing on " + ServerAddress(flags));
  const absl::Time start = absl::Now();
  const absl::StatusOr<ComputeReply> reply = client->Compute(request, Options(flags));
  if (!reply.ok()) return reply.status();
  const absl::Duration call = absl::Now() - start;

  if (const std::string& path = flags.output.value(); !path.empty()) {
    progress.Next("writing " + path);
    if (absl::Status s = WriteReply(path, request, *reply); !s.ok()) return s;
  }
  return Tell({request, *reply, call, flags}, input->reference);
}

}  // namespace

Command AttendCommand() {
  return {
      "attend",
      "",
      "compute attention over the tensors of a file",
      "Reads q [batch, heads, queries, dim], k [batch, key heads, keys, dim] and v [batch, key heads, keys, value "
      "dim]\n"
      "(F32, F16 or BF16; key heads may divide heads) from a safetensors file and writes o [batch, heads, queries,\n"
      "value dim] to another. Other tensors in the file are left alone. A query sees the keys that --mask, "
      "--key_starts,\n"
      "--key_lengths, --key_mask, --window_left and --window_right all allow.\n"
      "--prefix_lengths exempts keys from --mask.\n\n"
      "  attnctl attend --model t5-tiny --input layer.safetensors --output o.safetensors\n"
      "  attnctl attend --model t5-tiny --input layer.safetensors --compare o_hf --tolerance 1e-4\n"
      "  attnctl attend --bias none --key_mask attention_mask --input cross.safetensors --output o.safetensors",
      {"model",          "bias",         "input",        "output",        "table",          "version",
       "mask",           "scale",        "query_offset", "query_offsets", "query_lengths",  "key_lengths",
       "key_starts",     "key_mask",     "window_left",  "window_right",  "prefix_lengths", "key_bias",
       "query_segments", "key_segments", "kv_rows",      "layout",        "output_dtype",   "lse",
       "grpc_only",      "compare",      "tolerance",    "format"},
      Run,
      "ComputeAttentionRequest",
      TextOrJson()};
}

}  // namespace attnd::ctl
