// The answer of GetServerInfo.
#pragma once

#include <vector>

#include "attnd/v1/server.pb.h"
#include "kernel/kernel.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "schedule/intake.h"
#include "schedule/scheduler.h"
#include "server/config/options.h"
#include "server/rpc/counters.h"
#include "server/session/session_table.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

// The constant information about a server that starts now. The limits of `options` must be fitted (fitted_limits.h).
// The server's own settings follow `process_settings` (settings.h).
v1::GetServerInfoResponse InfoOf(const Options& options, const kernel::Kernel& kernel, int threads,
                                 const std::vector<v1::Setting>& process_settings);

// The calls that wait to be computed or were refused, together with those that wait to be received or were refused
// before that.
schedule::QueueUse WithIntake(schedule::QueueUse queue, const schedule::Intake::Use& intake);

// Adds to `info` what is in use now. `shared` is null if callers cannot share memory.
void AddUse(const memory::Ledger& ledger, const SharedMemory* shared, const Counters& counters,
            const model::Registry& models, const schedule::QueueUse& queue, const SessionTable::Use& sessions,
            v1::GetServerInfoResponse& info);

}  // namespace attnd::server
