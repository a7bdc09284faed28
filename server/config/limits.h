// The limits in force. A request that exceeds one is refused before memory is allocated for it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace attnd::server {

// One field for each limit in attnd/limits.inc, with its default; for a fitted limit, with the upper bound of its
// default. attnd.v1.Limits in server.proto documents them.
struct Limits {
#define ATTND_LIMIT(name, unit, value, ...) std::int64_t name = value;
#define ATTND_FIXED_LIMIT(name, value) std::int64_t name = value;
#include "attnd/limits.inc"
};

// The properties of one limit.
struct LimitRow {
  const char* name;             // also the flag's name
  std::int64_t Limits::*value;  // its field
  std::int64_t lowest;          // lowest and highest: only if it has a flag
  std::int64_t highest;
  bool has_flag;
  bool fitted;  // 0 means computed from the machine
  bool bytes;   // in bytes, not a count
};

// In the order of attnd.v1.Limits.
absl::Span<const LimitRow> LimitRows();

// The defaults of the flags. Fitted limits are 0 until server/serving/fitted_limits.h computes them.
Limits UnfittedLimits();

// Errors: INVALID_ARGUMENT naming a flag whose value is out of range.
absl::Status CheckLimits(const Limits& limits);

}  // namespace attnd::server
