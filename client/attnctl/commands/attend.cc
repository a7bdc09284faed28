#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/parse.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/tensors.h"
#include "files/safetensors_writer.h"

namespace attnd::ctl {
namespace {

// The tensors of the input file.
struct Input {
  LoadedTensor q, k, v;
  std::optional<LoadedTensor> reference;  // of --compare
};

absl::StatusOr<Input> ReadInput(const std::string& path) {
  const absl::StatusOr<files::SafetensorsFile> file = OpenSafetensors(path);
  if (!file.ok()) return file.status();
  Input input;
  for (const auto& [name, tensor] : {std::pair{"q", &input.q}, std::pair{"k", &input.k}, std::pair{"v", &input.v}}) {
    absl::StatusOr<LoadedTensor> loaded = LoadTensor(*file, path, name);
    if (!loaded.ok()) return loaded.status();
    *tensor = *std::move(loaded);
  }
  if (const std::string name = absl::GetFlag(FLAGS_compare); !name.empty()) {
    absl::StatusOr<LoadedTensor> loaded = LoadTensor(*file, path, name);
    if (!loaded.ok()) return loaded.status();
    input.reference = *std::move(loaded);
  }
  return input;
}

absl::Status CheckFlags() {
  if (absl::GetFlag(FLAGS_model).empty()) return UsageError("`attnctl attend` needs --model");
  if (absl::GetFlag(FLAGS_input).empty()) return UsageError("`attnctl attend` needs --input");
  if (absl::GetFlag(FLAGS_output).empty() && absl::GetFlag(FLAGS_compare).empty()) {
    return UsageError("`attnctl attend` needs --output, or --compare with a tensor of the input");
  }
  if (absl::GetFlag(FLAGS_tolerance).has_value() && absl::GetFlag(FLAGS_compare).empty()) {
    return UsageError("--tolerance is for --compare");
  }
  return absl::OkStatus();
}

// The request that the flags describe, without tensors.
absl::StatusOr<ComputeRequest> RequestFromFlags() {
  if (absl::Status s = CheckFlags(); !s.ok()) return s;
  ComputeRequest request;
  request.model = absl::GetFlag(FLAGS_model);
  request.version = absl::GetFlag(FLAGS_version);
  request.table = absl::GetFlag(FLAGS_table);
  request.return_log_sum_exp = absl::GetFlag(FLAGS_lse);
  if (const auto scale = absl::GetFlag(FLAGS_scale); scale.has_value()) request.scale = *scale;
  if (const auto offset = absl::GetFlag(FLAGS_query_offset); offset.has_value()) request.query_offset = *offset;

  const absl::StatusOr<Mask> mask = ParseMask(absl::GetFlag(FLAGS_mask));
  if (!mask.ok()) return mask.status();
  request.mask = *mask;
  const absl::StatusOr<Layout> layout = ParseLayout(absl::GetFlag(FLAGS_layout));
  if (!layout.ok()) return layout.status();
  request.layout = *layout;
  if (const std::string word = absl::GetFlag(FLAGS_output_dtype); !word.empty()) {
    const absl::StatusOr<DType> dtype = ParseDType(word);
    if (!dtype.ok()) return dtype.status();
    request.output_dtype = *dtype;
  }
  auto query_lengths = ParseNumbers("query_lengths", absl::GetFlag(FLAGS_query_lengths));
  if (!query_lengths.ok()) return query_lengths.status();
  request.query_lengths = *std::move(query_lengths);
  auto key_lengths = ParseNumbers("key_lengths", absl::GetFlag(FLAGS_key_lengths));
  if (!key_lengths.ok()) return key_lengths.status();
  request.key_lengths = *std::move(key_lengths);
  return request;
}

absl::Span<const std::byte> BytesOf(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data()), tensor.size_bytes()};
}

// What was computed, for whoever finds the file later.
std::map<std::string, std::string> Metadata(const ComputeRequest& request, const ComputeReply& reply) {
  std::map<std::string, std::string> metadata = {
      {"model", request.model},
      {"model_version", absl::StrCat(reply.version)},
      {"model_content_hash", reply.content_hash},
      {"table", request.table.empty() ? "decoder" : request.table},
      {"layout", absl::GetFlag(FLAGS_layout)},
      {"scale", absl::StrCat(request.scale.value_or(1.0F))},
  };
  if (request.mask != Mask::kOfTable) metadata["mask"] = NameOf(request.mask);
  if (request.query_offset.has_value()) metadata["query_offset"] = absl::StrCat(*request.query_offset);
  if (!request.query_lengths.empty()) metadata["query_lengths"] = absl::StrJoin(request.query_lengths, ",");
  if (!request.key_lengths.empty()) metadata["key_lengths"] = absl::StrJoin(request.key_lengths, ",");
  return metadata;
}

absl::Status WriteReply(const std::string& path, const ComputeRequest& request, const ComputeReply& reply) {
  const auto& sizes = reply.output.sizes();
  std::vector<files::TensorToWrite> tensors = {
      {"o", tensor::NameOf(ToEngine(reply.dtype)), {sizes.begin(), sizes.end()}, BytesOf(reply.output)}};
  if (request.return_log_sum_exp) {
    const bool heads_first = request.layout == Layout::kBatchHeadSequenceDim;
    tensors.push_back(
        {"lse",
         "F32",
         {sizes[0], sizes[heads_first ? 1 : 2], sizes[heads_first ? 2 : 1]},
         {reinterpret_cast<const std::byte*>(reply.log_sum_exp.data()), reply.log_sum_exp.size() * sizeof(float)}});
  }
  return files::WriteSafetensors(path, tensors, Metadata(request, reply));
}

// The largest difference of any element; a NaN on one side alone is infinite.
double LargestError(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    const double error = a[i] == b[i] ? 0 : std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    largest = std::max(largest, std::isnan(error) ? HUGE_VAL : error);
  }
  return largest;
}

absl::Status Compare(const LoadedTensor& reference, const ComputeReply& reply) {
  const std::string name = absl::GetFlag(FLAGS_compare);
  if (reference.sizes != reply.output.sizes()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": expected the shape of o, [",
                                                   absl::StrJoin(reply.output.sizes(), ", "), "], got [",
                                                   absl::StrJoin(reference.sizes, ", "), "]"));
  }
  const double error =
      LargestError(Widened(reply.dtype, BytesOf(reply.output)), Widened(reference.dtype, reference.bytes));
  std::cout << absl::StrFormat("max abs error against %s: %.3g\n", name, error);
  const absl::optional<double> tolerance = absl::GetFlag(FLAGS_tolerance);
  if (!tolerance.has_value() || error <= *tolerance) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrFormat("o differs from %s by up to %.3g, more than the tolerance %.3g", name, error, *tolerance));
}

void Summarise(const ComputeRequest& request, const ComputeReply& reply, absl::Duration call) {
  std::cout << absl::StrFormat("o [%s] %s from %s version %d; server: queued %s, computed %s; whole call %s\n",
                               absl::StrJoin(reply.output.sizes(), ", "), tensor::NameOf(ToEngine(reply.dtype)),
                               request.model, reply.version, absl::FormatDuration(reply.queue_time),
                               absl::FormatDuration(reply.compute_time),
                               absl::FormatDuration(absl::Trunc(call, absl::Microseconds(1))));
}

}  // namespace

absl::Status Attend(const std::vector<std::string>&) {
  absl::StatusOr<ComputeRequest> request = RequestFromFlags();
  if (!request.ok()) return request.status();
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();

  Progress progress("reading " + absl::GetFlag(FLAGS_input));
  const absl::StatusOr<Input> input = ReadInput(absl::GetFlag(FLAGS_input));
  if (!input.ok()) return input.status();
  request->q = input->q.view();
  request->k = input->k.view();
  request->v = input->v.view();

  progress.Next("computing on " + ServerAddress());
  const absl::Time start = absl::Now();
  const absl::StatusOr<ComputeReply> reply = client->Compute(*request, Options());
  if (!reply.ok()) return reply.status();
  const absl::Duration call = absl::Now() - start;

  if (const std::string path = absl::GetFlag(FLAGS_output); !path.empty()) {
    progress.Next("writing " + path);
    if (absl::Status s = WriteReply(path, *request, *reply); !s.ok()) return s;
  }
  Summarise(*request, *reply, call);
  return input->reference.has_value() ? Compare(*input->reference, *reply) : absl::OkStatus();
}

}  // namespace attnd::ctl
