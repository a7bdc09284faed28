// Datagrams to a local caller (attnd/v1/local.proto).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/attention/engine.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// Upper bound on an answer's bytes other than output and log-sum-exp.
inline constexpr std::int64_t kAnswerHeaderBytes = 1024;
// The most bytes of output and log-sum-exp in an answer.
inline constexpr std::int64_t kMaxAnsweredBytes = static_cast<std::int64_t>(kMaxDatagramBytes) - kAnswerHeaderBytes;

// Answers to the call `id`. An error has the message and details that gRPC's callers get. ErrorAnswer never throws:
// without memory it returns RESOURCE_EXHAUSTED without a message.
std::string ErrorAnswer(std::uint64_t id, const absl::Status& status);
// `result` must fit kMaxAnsweredBytes.
std::string ResultAnswer(std::uint64_t id, const AttentionResult& result);

// The answer to a hello: whether the server takes calls, and sessions.
std::string Welcome(const absl::Status& status, bool sessions);

}  // namespace attnd::server
