// What `attnctl attend` does with a result.
#pragma once

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "client/attnctl/tensors.h"

namespace attnd::ctl {

// Writes a safetensors file (to standard output if `path` is "-") with `o` (and `lse`, if the request asked for it) and
// metadata that says what was computed. Errors: see WriteSafetensors; marked as OutputError does (output.h).
absl::Status WriteReply(const std::string& path, const ComputeRequest& request, const ComputeReply& reply);

// Says, by `say`, the largest difference between `o` and `reference`, the tensor `name` of the input. Errors:
// INVALID_ARGUMENT if their shapes differ; OUT_OF_RANGE if the difference is larger than `tolerance`; those of `say`.
absl::Status Compare(const ComputeReply& reply, const LoadedTensor& reference, const std::string& name,
                     std::optional<double> tolerance, absl::FunctionRef<absl::Status(const std::string&)> say);

// One line: shape and type of `o`, the model's version, and times; `call` is that of the whole call.
std::string Summary(const ComputeRequest& request, const ComputeReply& reply, absl::Duration call);

}  // namespace attnd::ctl
