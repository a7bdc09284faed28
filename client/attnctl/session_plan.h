// What a session of a given shape reserves, and how many fit into a budget.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/models.h"
#include "client/attnctl/flags.h"
#include "reservation/session_bytes.h"

namespace attnd::ctl {

struct SessionPlan {
  std::int64_t rows = 0;
  std::int64_t sources = 0;
  std::int64_t self_layers = 0;
  std::int64_t cross_layers = 0;
  tensor::DType dtype = tensor::DType::kF32;
  reservation::LayerShape layer{};  // of each layer
  reservation::SessionBytes bytes;
};

// The plan that the flags of `sessions plan` describe. Errors: see UsageError.
absl::StatusOr<SessionPlan> PlanOf(const Flags& flags);

// Checks that a server with these limits accepts such a session. Errors: FAILED_PRECONDITION, with advice.
absl::Status CheckPlan(const SessionPlan& plan, const Flags& flags, const Limits& limits);

// The memory budget for sessions.
struct SessionBudget {
  std::int64_t total = 0;
  std::int64_t used = 0;
  bool shares = true;  // a caller holds at most what stays free (attnd's --peer_shares)
  std::optional<SessionUse> sessions;
};

SessionBudget BudgetOf(std::int64_t bytes);
// nullopt if the server does not report its memory.
std::optional<SessionBudget> BudgetOf(const ServerInfo& server);

// The most memory that one caller can take if it holds nothing yet.
std::int64_t MostOfOneCaller(const SessionBudget& budget);

// The limit that determines a count.
enum class Bound { kMemory, kMaxSessions, kMaxPeerSessions };

struct Fit {
  std::int64_t sessions;
  Bound bound;
};

// The number of sessions of `bytes` each (at least 1) that one caller can open if it has none.
Fit FitOfOneCaller(std::int64_t bytes, const SessionBudget& budget);
// The most that all callers together can open: with one session for each caller.
Fit FitOfAllCallers(std::int64_t bytes, const SessionBudget& budget);

}  // namespace attnd::ctl
