// The server that attnctl talks to, and how.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "attnd/client.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// --server, or the environment's ATTND_SERVER, or 127.0.0.1:50051.
std::string ServerAddress(const Flags& flags);

// Whether that can be an address. Errors: see UsageError.
absl::Status CheckAddress(const Flags& flags);

// A client of that server, with --retry_for and --grpc_only. Errors: see CheckAddress and Client::Create.
absl::StatusOr<Client> Connect(const Flags& flags);

// With --timeout, counted from now.
CallOptions Options(const Flags& flags);

}  // namespace attnd::ctl
