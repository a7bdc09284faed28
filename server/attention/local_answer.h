// The datagrams that go to a local caller (attnd/v1/local.proto).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/attention/engine.h"
#include "server/shm/local_calls.h"

namespace attnd::server {

// What of an answer is neither output nor log-sum-exp takes less than this.
inline constexpr std::int64_t kAnswerHeaderBytes = 1024;
// Room for a result in an answer.
inline constexpr std::int64_t kMaxAnsweredBytes = static_cast<std::int64_t>(kMaxDatagramBytes) - kAnswerHeaderBytes;

// Answers to the call `id`. An error has the words and details that gRPC's callers get; ErrorAnswer never throws, and
// without memory for that is RESOURCE_EXHAUSTED without words.
std::string ErrorAnswer(std::uint64_t id, const absl::Status& status);
// `result` within kMaxAnsweredBytes.
std::string ResultAnswer(std::uint64_t id, const AttentionResult& result);

// The answer to a hello: whether calls are taken, and sessions.
std::string Welcome(const absl::Status& status, bool sessions);

}  // namespace attnd::server
