// The options of the server's parts, from the server's own. Limits must be fitted (fitted_limits.h).
#pragma once

#include "memory/ledger.h"
#include "model/registry.h"
#include "server/attention/service.h"
#include "server/config/options.h"
#include "server/net/acceptor.h"
#include "server/rpc/stall_watch.h"
#include "server/session/session_table.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

memory::Ledger::Options LedgerOptionsOf(const Options& options);
model::RegistryOptions RegistryOptionsOf(const Options& options);
StallLimit StallLimitOf(const Options& options);
SessionOptions SessionOptionsOf(const Options& options);
AttentionServiceOptions AttentionServiceOptionsOf(const Options& options);
// One connection may share half of the memory.
SharedMemoryLimits SharedMemoryLimitsOf(const Options& options);
ConnectionLimits ConnectionLimitsOf(const Options& options);

}  // namespace attnd::server
