// What GetServerInfo answers.
#pragma once

#include <vector>

#include "attnd/v1/server.pb.h"
#include "kernel/kernel.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "schedule/scheduler.h"
#include "server/config/options.h"
#include "server/rpc/counters.h"
#include "server/session/session_table.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

// The facts of a server that starts now, whose limits are fitted (fitted_limits.h). `process_settings` are those that
// the process has seen (settings.h); the server's own follow them.
v1::GetServerInfoResponse InfoOf(const Options& options, const kernel::Kernel& kernel, int threads,
                                 const std::vector<v1::Setting>& process_settings);

// What is in use now, as InfoService adds it. `shared` is null where callers cannot share memory.
void AddUse(const memory::Ledger& ledger, const SharedMemory* shared, const Counters& counters,
            const model::Registry& models, const schedule::QueueUse& queue, const SessionTable::Use& sessions,
            v1::GetServerInfoResponse& info);

}  // namespace attnd::server
