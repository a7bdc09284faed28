// The limits in force: what exceeds one is refused before memory is allocated for it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attnd::server {

// One field for each limit of attnd/limits.inc, with its default, or with the most that its default may be where that
// follows the machine. Meanings: attnd.v1.Limits in server.proto.
struct Limits {
#define ATTND_LIMIT(name, unit, value, ...) std::int64_t name = value;
#define ATTND_FIXED_LIMIT(name, value) std::int64_t name = value;
#include "attnd/limits.inc"
};

// What is known of one limit.
struct LimitRow {
  const char* name;             // also of the flag
  std::int64_t Limits::*value;  // where it stands
  std::int64_t lowest;          // this and the next for those that have a flag
  std::int64_t highest;
  bool has_flag;
  bool fitted;  // 0 stands for what fits the machine
  bool bytes;
};

// In the order of attnd.v1.Limits.
absl::Span<const LimitRow> LimitRows();

// The defaults of the flags: 0 in those limits that follow the machine, until server/serving/fitted_limits.h has fitted
// them.
Limits UnfittedLimits();

// Errors: INVALID_ARGUMENT naming the flag whose value is out of its range.
absl::Status CheckLimits(const Limits& limits);

}  // namespace attnd::server
