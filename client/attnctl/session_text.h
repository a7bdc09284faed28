// Open sessions as the commands print them.
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

// A line for each, below their titles; a sentence if there is none.
std::string SessionTable(const std::vector<OpenSessionInfo>& sessions);

// Several lines: its facts.
std::string Described(const OpenSessionInfo& session);

// The numbers of sessions that arguments name, each once. Errors: see UsageError.
absl::StatusOr<std::vector<std::uint64_t>> SessionIds(const std::vector<std::string>& arguments);

// NOT_FOUND, with how to find out what is open.
absl::Status NoSession(const std::vector<std::uint64_t>& ids);

}  // namespace attnd::ctl
