// What `attnctl attend` does with a result.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/tensors.h"

namespace attnd::ctl {

// Writes a safetensors file (to standard output if `path` is "-") with `o` (and `lse`, if the request asked for it) and
// metadata that says what was computed. Errors: see WriteSafetensors; marked as OutputError does (output.h).
absl::Status WriteReply(const std::string& path, const ComputeRequest& request, const ComputeReply& reply);

// A call that was answered. Borrows all but `call`.
struct Answered {
  const ComputeRequest& request;
  const ComputeReply& reply;
  absl::Duration call;  // of the whole call
  const Flags& flags;
};

// Says what was computed and how long it took, and, if there is a `reference` (the tensor of the input that --compare
// names), how far `o` is from it: as text or as --format says, on standard output, or on standard error if the tensors
// went there. Errors: INVALID_ARGUMENT if the shapes differ; OUT_OF_RANGE if the difference is larger than
// --tolerance; see WriteOutput.
absl::Status Tell(const Answered& answered, const std::optional<LoadedTensor>& reference);

}  // namespace attnd::ctl
