// Prints open sessions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/session.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {

nlohmann::ordered_json ToJson(const OpenSessionInfo& session);

// A table with titles and one line for each session; a sentence if there is none.
std::string SessionTable(const std::vector<OpenSessionInfo>& sessions);

// Several lines: the session's properties.
std::string Described(const OpenSessionInfo& session);

// The session numbers in `arguments`, without duplicates. Errors: see UsageError.
absl::StatusOr<std::vector<std::uint64_t>> SessionIds(const std::vector<std::string>& arguments);

// NOT_FOUND, with advice on how to list the open sessions.
absl::Status NoSession(const std::vector<std::uint64_t>& ids);

}  // namespace attnd::ctl
