#include "server/config/limits.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

struct Unit {
  bool fitted;
  bool bytes;
};
constexpr Unit kBytes = {false, true};
constexpr Unit kCount = {false, false};
constexpr Unit kFittedBytes = {true, true};
constexpr Unit kFittedCount = {true, false};

constexpr LimitRow kRows[] = {
#define ATTND_LIMIT(name, unit, value, lowest, highest, help) \
  {#name, &Limits::name, lowest, highest, true, k##unit.fitted, k##unit.bytes},
#define ATTND_FIXED_LIMIT(name, value) {#name, &Limits::name, 0, 0, false, false, false},
#include "attnd/limits.inc"
};

}  // namespace

absl::Span<const LimitRow> LimitRows() { return kRows; }

Limits UnfittedLimits() {
  Limits limits;
  for (const LimitRow& row : kRows) {
    if (row.fitted) limits.*row.value = 0;
  }
  return limits;
}

absl::Status CheckLimits(const Limits& limits) {
  for (const LimitRow& row : kRows) {
    const std::int64_t value = limits.*row.value;
    if (!row.has_flag || (value >= row.lowest && value <= row.highest)) continue;
    const bool unbounded = row.highest == std::numeric_limits<std::int64_t>::max();
    return InvalidField(
        absl::StrCat("--", row.name),
        unbounded ? absl::StrCat("at least ", row.lowest) : absl::StrCat(row.lowest, " to ", row.highest), value);
  }
  return absl::OkStatus();
}

}  // namespace attnd::server
