// What a session of some shape reserves, and how many fit into a budget.
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
  reservation::LayerShape layer{};  // of each
  reservation::SessionBytes bytes;
};

// What the flags of `sessions plan` describe. Errors: see UsageError.
absl::StatusOr<SessionPlan> PlanOf(const Flags& flags);

// Whether a server with these limits takes such a session at all. Errors: FAILED_PRECONDITION, with advice.
absl::Status CheckPlan(const SessionPlan& plan, const Flags& flags, const Limits& limits);

// What sessions come out of.
struct SessionBudget {
  std::int64_t total = 0;
  std::int64_t used = 0;
  bool shares = true;  // a caller holds no more than stays free (attnd's --peer_shares)
  std::optional<SessionUse> sessions;
};

SessionBudget BudgetOf(std::int64_t bytes);
// nullopt of a server that says nothing of its memory.
std::optional<SessionBudget> BudgetOf(const ServerInfo& server);

// What one caller can take that holds nothing yet.
std::int64_t MostOfOneCaller(const SessionBudget& budget);

// What ends a count.
enum class Bound { kMemory, kMaxSessions, kMaxPeerSessions };

struct Fit {
  std::int64_t sessions;
  Bound bound;
};

// How many sessions of `bytes` >= 1 each one caller can open that has none.
Fit FitOfOneCaller(std::int64_t bytes, const SessionBudget& budget);
// How many all callers together can at best: as many callers as there are sessions.
Fit FitOfAllCallers(std::int64_t bytes, const SessionBudget& budget);

}  // namespace attnd::ctl
