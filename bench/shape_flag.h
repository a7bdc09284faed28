// The flag --shape of programs that call a server.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attnd::bench {

// "batch,heads,length,head_dim". Errors: INVALID_ARGUMENT.
inline absl::StatusOr<std::array<std::int64_t, 4>> ParseShape(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  std::array<std::int64_t, 4> sizes{};
  bool good = parts.size() == sizes.size();
  for (std::size_t i = 0; good && i < sizes.size(); ++i) {
    good = absl::SimpleAtoi(parts[i], &sizes[i]) && sizes[i] >= 1 && sizes[i] <= (1 << 20);
  }
  if (good) return sizes;
  return absl::InvalidArgumentError(absl::StrCat("--shape: expected four sizes in 1..1048576, got '", text, "'"));
}

}  // namespace attnd::bench
