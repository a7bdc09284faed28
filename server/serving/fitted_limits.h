// Computes the limits that fit the memory and the descriptors that the process may have.
#pragma once

#include <cstdint>

#include "server/config/limits.h"
#include "server/config/options.h"
#include "server/serving/memory_setting.h"

namespace attnd::server {

// The memory that the server uses besides what the limits bound: without calls and models, with `threads` threads that
// compute.
std::int64_t BaseBytes(int threads);

// Returns the limits of `options`. Those that are 0 are computed from `allowed` and `connections`:
//   max_total_model_bytes
//                       an eighth of `allowed` less BaseBytes, at least 16 MiB
//   max_model_bytes     max_total_model_bytes
//   max_inflight_bytes  half of `allowed` less BaseBytes and max_total_model_bytes, at least 32 MiB; the other half is
//                       for messages that have not arrived completely, and for memory that the allocator cannot reuse
//                       at once
//   max_request_bytes, max_result_bytes
//                       an eighth of max_inflight_bytes. So the largest request fits into the half that one peer can
//                       have, together with its result and with keys and values widened to twice their size
//   max_shared_bytes    half of `allowed` less BaseBytes and max_total_model_bytes, at least 32 MiB
//   max_connections     `connections` (what descriptors allow), or as many as need a sixteenth of `allowed` less
//                       BaseBytes (at least 256) if that is less
//   max_reads           what keeps `threads` threads busy (schedule::DefaultPlaces)
// Each is at most its value in attnd/limits.inc. Limits that are not 0 stay unchanged.
Limits FittedLimits(const Options& options, int threads, const AllowedMemory& allowed, std::int64_t connections);

}  // namespace attnd::server
