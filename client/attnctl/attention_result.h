// Writes and reports a result of `attnctl attend`.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/attention.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/tensors.h"

namespace attnd::ctl {

// Writes a safetensors file (to standard output if `path` is "-") with `o`, `lse` if the request asked for it, and
// metadata that describes the computation. Errors: see WriteSafetensors; marked by OutputError (output.h).
absl::Status WriteReply(const std::string& path, const ComputeRequest& request, const ComputeReply& reply);

// A call with its reply. Borrows everything except `call`.
struct Answered {
  const ComputeRequest& request;
  const ComputeReply& reply;
  absl::Duration call;  // duration of the whole call
  const Flags& flags;
};

// Prints what was computed and how long it took and, if there is a `reference` (the tensor of the input that --compare
// names), how far `o` is from it. Prints text, or the form that --format names, on standard output, or on standard
// error if the tensors went to standard output. Errors: INVALID_ARGUMENT if the shapes differ; OUT_OF_RANGE if the
// difference is larger than --tolerance; see WriteOutput.
absl::Status Tell(const Answered& answered, const std::optional<LoadedTensor>& reference);

}  // namespace attnd::ctl
