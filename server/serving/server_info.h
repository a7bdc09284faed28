// What GetServerInfo answers.
#pragma once

#include <vector>

#include "attnd/v1/server.pb.h"
#include "kernel/kernel.h"
#include "server/config/options.h"

namespace attnd::server {

// The facts of a server that starts now. `process_settings` are those that the process has seen (settings.h); the
// server's own follow them.
v1::GetServerInfoResponse InfoOf(const Options& options, const kernel::Kernel& kernel, int threads,
                                 const std::vector<v1::Setting>& process_settings);

}  // namespace attnd::server
