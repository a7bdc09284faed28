// Words of the command line as the client's types.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnd/attention.h"

namespace attnd::ctl {

// "causal", "none"; empty: the table's own. Errors of all: see UsageError.
absl::StatusOr<Mask> ParseMask(const std::string& word);
// "bhsd", "bshd".
absl::StatusOr<Layout> ParseLayout(const std::string& word);
// "f32", "f16", "bf16".
absl::StatusOr<DType> ParseDType(const std::string& word);
// Whole numbers.
absl::StatusOr<std::vector<std::int64_t>> ParseNumbers(const std::string& flag, const std::vector<std::string>& words);

// "causal" or "none".
const char* NameOf(Mask mask);

}  // namespace attnd::ctl
