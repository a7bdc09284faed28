#include "client/attnctl/attention_result.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "client/attnctl/output.h"
#include "files/safetensors_writer.h"

namespace attnd::ctl {
namespace {

absl::Span<const std::byte> BytesOf(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data()), tensor.size_bytes()};
}

absl::string_view TextOf(const std::vector<unsigned char>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What was computed, for whoever finds the file later.
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
  if (!request.key_bits.empty()) metadata["key_bits"] = absl::BytesToHexString(TextOf(request.key_bits));
  return metadata;
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

absl::Status Compare(const ComputeReply& reply, const LoadedTensor& reference, const std::string& name,
                     std::optional<double> tolerance, absl::FunctionRef<absl::Status(const std::string&)> say) {
  if (reference.sizes != reply.output.sizes()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": expected the shape of o, [",
                                                   absl::StrJoin(reply.output.sizes(), ", "), "], got [",
                                                   absl::StrJoin(reference.sizes, ", "), "]"));
  }
  const double error =
      LargestError(Widened(reply.dtype, BytesOf(reply.output)), Widened(reference.dtype, reference.bytes));
  const std::string line = absl::StrFormat("max abs error against %s: %.3g\n", name, error);
  if (absl::Status said = say(line); !said.ok()) return said;
  if (!tolerance.has_value() || error <= *tolerance) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrFormat("o differs from %s by up to %.3g, more than the tolerance %.3g", name, error, *tolerance));
}

namespace {

const char* NameOf(Transport transport) {
  switch (transport) {
    case Transport::kGrpc:
      break;
    case Transport::kSharedMemory:
      return "gRPC, tensors in shared memory";
    case Transport::kLocal:
      return "the local socket";
  }
  return "gRPC";
}

}  // namespace

std::string Summary(const ComputeRequest& request, const ComputeReply& reply, absl::Duration call) {
  const std::string origin =
      request.bias == Bias::kNone ? "without bias" : absl::StrCat("from ", request.model, " version ", reply.version);
  return absl::StrFormat("o [%s] %s %s; server: queued %s, computed %s; whole call %s, by %s\n",
                         absl::StrJoin(reply.output.sizes(), ", "), tensor::NameOf(ToEngine(reply.dtype)), origin,
                         absl::FormatDuration(reply.queue_time), absl::FormatDuration(reply.compute_time),
                         absl::FormatDuration(absl::Trunc(call, absl::Microseconds(1))), NameOf(reply.transport));
}

}  // namespace attnd::ctl
