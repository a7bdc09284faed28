#include "client/attnctl/attention_result.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iostream>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "client/attnctl/attention_report.h"
#include "client/attnctl/output.h"
#include "client/attnctl/usage.h"
#include "files/safetensors_writer.h"

namespace attnd::ctl {
namespace {

absl::Span<const std::byte> BytesOf(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data()), tensor.size_bytes()};
}

absl::string_view TextOf(const std::vector<unsigned char>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Describes the computation in the file's metadata.
std::map<std::string, std::string> Metadata(const ComputeRequest& request, const ComputeReply& reply) {
  std::map<std::string, std::string> metadata = {
      {"layout", request.layout == Layout::kBatchHeadSequenceDim ? "bhsd" : "bshd"},
      {"scale", absl::StrCat(request.scale.value_or(1.0F))},
  };
  if (request.bias == Bias::kNone) {
    metadata["bias"] = "none";
  } else {
    metadata["model"] = request.model;
    metadata["model_version"] = absl::StrCat(reply.version);
    metadata["model_content_hash"] = reply.content_hash;
    metadata["table"] = request.table.empty() ? "decoder" : request.table;
  }
  if (request.mask != Mask::kOfTable) metadata["mask"] = request.mask == Mask::kCausal ? "causal" : "none";
  if (request.query_offset.has_value()) metadata["query_offset"] = absl::StrCat(*request.query_offset);
  if (!request.query_offsets.empty()) metadata["query_offsets"] = absl::StrJoin(request.query_offsets, ",");
  if (!request.query_lengths.empty()) metadata["query_lengths"] = absl::StrJoin(request.query_lengths, ",");
  if (!request.key_lengths.empty()) metadata["key_lengths"] = absl::StrJoin(request.key_lengths, ",");
  if (!request.key_starts.empty()) metadata["key_starts"] = absl::StrJoin(request.key_starts, ",");
  if (request.window_left.has_value()) metadata["window_left"] = absl::StrCat(*request.window_left);
  if (request.window_right.has_value()) metadata["window_right"] = absl::StrCat(*request.window_right);
  if (!request.prefix_lengths.empty()) metadata["prefix_lengths"] = absl::StrJoin(request.prefix_lengths, ",");
  if (!request.key_bias.empty()) metadata["key_bias"] = absl::StrCat(request.key_bias.size(), " values");
  if (!request.query_segments.empty()) metadata["query_segments"] = absl::StrJoin(request.query_segments, ",");
  if (!request.key_segments.empty()) metadata["key_segments"] = absl::StrJoin(request.key_segments, ",");
  if (!request.kv_rows.empty()) metadata["kv_rows"] = absl::StrJoin(request.kv_rows, ",");
  if (!request.key_bits.empty()) metadata["key_bits"] = absl::BytesToHexString(TextOf(request.key_bits));
  return metadata;
}

// A NaN on one side only counts as an infinite difference; two NaNs are equal.
absl::StatusOr<Difference> Compare(const Answered& answered, const LoadedTensor& reference) {
  const ComputeReply& reply = answered.reply;
  Difference difference{answered.flags.compare.value(), 0, 0, answered.flags.tolerance.value()};
  if (reference.sizes != reply.output.sizes()) {
    return WithAdvice(absl::InvalidArgumentError(absl::StrCat(difference.name, ": expected the shape of o, [",
                                                              absl::StrJoin(reply.output.sizes(), ", "), "], got [",
                                                              absl::StrJoin(reference.sizes, ", "), "]")),
                      "name another tensor of the input with --compare");
  }
  const std::vector<float> a = Widened(reply.dtype, BytesOf(reply.output)),
                           b = Widened(reference.dtype, reference.bytes);
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    const double error = a[i] == b[i] ? 0 : std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    difference.largest = std::max(difference.largest, std::isnan(error) ? HUGE_VAL : error);
    squares += error * error;
  }
  difference.rms = std::isnan(squares) ? HUGE_VAL : std::sqrt(squares / static_cast<double>(a.size()));
  return difference;
}

// Uses standard error if the tensors went to standard output.
absl::Status Say(const std::string& text, const std::string& output) {
  if (output.empty() || !IsStandardOutput(output)) return WriteOutput("", text);
  std::cerr << text;
  return absl::OkStatus();
}

}  // namespace

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
  return OutputError(files::WriteSafetensors(path, tensors, Metadata(request, reply)));
}

absl::Status Tell(const Answered& answered, const std::optional<LoadedTensor>& reference) {
  std::optional<Difference> difference;
  if (reference.has_value()) {
    absl::StatusOr<Difference> found = Compare(answered, *reference);
    if (!found.ok()) return found.status();
    difference = *std::move(found);
  }
  const bool json = answered.flags.WantsJson();
  const std::string text = json ? AsJson(answered, difference) : AsText(answered, difference);
  if (absl::Status said = Say(text, answered.flags.output.value()); !said.ok()) return said;
  if (!difference.has_value() || difference->held()) return absl::OkStatus();
  return WithAdvice(
      absl::OutOfRangeError(absl::StrFormat("o differs from %s by up to %.3g, more than the tolerance %.3g",
                                            difference->name, difference->largest, *difference->tolerance)),
      "was it computed with another --scale, --mask, --table or model? else allow more with --tolerance");
}

}  // namespace attnd::ctl
