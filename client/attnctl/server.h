// The server that attnctl calls, and the options of its calls.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "attnd/client.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// --server, or the environment's ATTND_SERVER, or 127.0.0.1:50051.
std::string ServerAddress(const Flags& flags);

// Checks that it can be an address. Errors: see UsageError.
absl::Status CheckAddress(const Flags& flags);

// A client of that server, with --retry_for and --grpc_only. Errors: see CheckAddress and Client::Create.
absl::StatusOr<Client> Connect(const Flags& flags);

// Call options with the deadline --timeout from now.
CallOptions Options(const Flags& flags);

}  // namespace attnd::ctl
