// Limits that fit the memory and the descriptors which the process may have.
#pragma once

#include <cstdint>

#include "server/config/limits.h"
#include "server/config/options.h"
#include "server/serving/memory_setting.h"

namespace attnd::server {

// What the server takes beside the limits: without calls and models, and in each thread that computes.
std::int64_t BaseBytes(int threads);

// The limits of `options`, with those that are 0 fitted to `allowed` and `connections`:
//   max_total_model_bytes
//                       an eighth of what BaseBytes leaves
//   max_model_bytes     max_total_model_bytes
//   max_inflight_bytes  half of what BaseBytes and max_total_model_bytes leave: the other half is for messages that
//                       have not arrived in full, and for what the allocator cannot use again at once
//   max_request_bytes, max_result_bytes
//                       an eighth of max_inflight_bytes, so that the largest request that is allowed fits into the half
//                       that one peer can have, with its result and with keys and values widened to twice their size
//   max_shared_bytes    half of what BaseBytes and max_total_model_bytes leave
//   max_connections     `connections`, as descriptors allow, but no more than a sixteenth of the memory is enough for
//   max_reads           what keeps `threads` threads busy (schedule::DefaultPlaces)
// each at most the value in attnd/limits.inc. Limits that are not 0 are kept as they are.
Limits FittedLimits(const Options& options, int threads, const AllowedMemory& allowed, std::int64_t connections);

}  // namespace attnd::server
