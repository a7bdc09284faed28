// Human-readable bytes and durations.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace attnd::ctl {

// "0 B", "64.0 KiB", "102.1 MiB": rounded down to a tenth, so that too little never looks like enough.
std::string BytesText(std::int64_t bytes);

// "3.4s", "5m12s", "1h2m", "3d4h": the two largest units.
std::string ShortDuration(absl::Duration duration);

}  // namespace attnd::ctl
