#include "client/attnctl/session_plan.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

constexpr char kCommand[] = "`attnctl sessions plan`";

absl::Status Needs(const std::string& flag, const std::string& advice) {
  return UsageError(absl::StrCat(kCommand, " needs ", flag), advice);
}

absl::Status OnlyWith(const Flag& flag, const char* layers) {
  return UsageError(absl::StrCat("--", flag.name(), ": expected none without --", layers),
                    absl::StrCat("say how many layers of that kind there are with --", layers, ", or leave it out"));
}

// Checks the flags without a server.
absl::Status CheckFlags(const Flags& flags) {
  const std::int64_t self = flags.self_layers.value(), cross = flags.cross_layers.value();
  if (self + cross == 0) {
    return Needs("--self_layers or --cross_layers",
                 "write how many layers keep keys and values; of T5-small, `--self_layers 6 --cross_layers 6`");
  }
  if (self + cross > reservation::kMostLayers) {
    return UsageError(absl::StrCat("--self_layers and --cross_layers: expected at most ", reservation::kMostLayers,
                                   " layers together, got ", self + cross));
  }
  if (self > 0 && !flags.max_tokens.value().has_value()) {
    return Needs("--max_tokens with --self_layers", "write `--max_tokens N`, the most tokens that a row may get");
  }
  if (cross > 0 && !flags.max_source_tokens.value().has_value()) {
    return Needs("--max_source_tokens with --cross_layers",
                 "write `--max_source_tokens N`, the most tokens that a source may have");
  }
  if (self == 0 && flags.max_tokens.value().has_value()) return OnlyWith(flags.max_tokens, "self_layers");
  if (cross == 0 && flags.max_source_tokens.value().has_value()) {
    return OnlyWith(flags.max_source_tokens, "cross_layers");
  }
  if (cross == 0 && flags.sources.value().value_or(0) > 0) return OnlyWith(flags.sources, "cross_layers");
  if (!flags.layer_heads.value().has_value() && !flags.kv_heads.value().has_value()) {
    return Needs("--heads", "write `--heads N`, and `--kv_heads N` too if key heads are fewer");
  }
  if (!flags.head_dim.value().has_value()) {
    return Needs("--head_dim", "write `--head_dim N`, the elements of a head's key (often 64 or 128)");
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const Flags& flags) {
  const std::int64_t rows = flags.rows.value();
  if (flags.cross_layers.value() > 0) {
    const std::int64_t sources = flags.sources.value().value_or(1);
    if (sources < 1 || sources > rows) {
      return UsageError(absl::StrCat("--sources: expected 1 to ", rows, " (--rows), got ", sources),
                        "each source is read by one row or more: --rows is the batch times the beams");
    }
  }
  if (flags.layer_heads.value().has_value() && flags.kv_heads.value().has_value()) {
    const std::int64_t heads = *flags.layer_heads.value(), kv_heads = *flags.kv_heads.value();
    if (heads % kv_heads != 0) {
      return UsageError(absl::StrCat("--kv_heads: expected a divisor of --heads, which is ", heads, ", got ", kv_heads),
                        "a key head is read by as many query heads as each other");
    }
  }
  return absl::OkStatus();
}

std::optional<reservation::KeptBytes> KeptOf(const SessionPlan& plan, std::int64_t layers, std::int64_t sequences,
                                             std::int64_t tokens) {
  const std::vector<reservation::LayerShape> shapes(static_cast<std::size_t>(layers), plan.layer);
  return reservation::BytesOfKept(shapes, plan.dtype, sequences, tokens);
}

Fit Least(Fit a, Fit b) { return b.sessions < a.sessions ? b : a; }

// The number of sessions that can be opened in addition to the open ones.
Fit LeftInAll(const SessionUse& use) {
  return {std::max<std::int64_t>(0, use.max_sessions - use.open), Bound::kMaxSessions};
}

std::int64_t Free(const SessionBudget& budget) { return std::max<std::int64_t>(0, budget.total - budget.used); }

}  // namespace

absl::StatusOr<SessionPlan> PlanOf(const Flags& flags) {
  if (absl::Status s = CheckFlags(flags); !s.ok()) return s;
  if (absl::Status s = CheckNumbers(flags); !s.ok()) return s;
  const std::int64_t head_dim = *flags.head_dim.value();
  SessionPlan plan{.rows = flags.rows.value(),
                   .sources = flags.cross_layers.value() > 0 ? flags.sources.value().value_or(1) : 0,
                   .self_layers = flags.self_layers.value(),
                   .cross_layers = flags.cross_layers.value(),
                   .dtype = flags.dtype.value(),
                   .layer = {.kv_heads = flags.kv_heads.value().value_or(flags.layer_heads.value().value_or(0)),
                             .head_dim = head_dim,
                             .value_head_dim = flags.value_head_dim.value().value_or(head_dim)},
                   .bytes = {0, std::nullopt, std::nullopt}};
  std::optional<reservation::KeptBytes> self, cross;
  if (plan.self_layers > 0) self = KeptOf(plan, plan.self_layers, plan.rows, *flags.max_tokens.value());
  if (plan.cross_layers > 0) cross = KeptOf(plan, plan.cross_layers, plan.sources, *flags.max_source_tokens.value());
  if (self.has_value() != (plan.self_layers > 0) || cross.has_value() != (plan.cross_layers > 0)) {
    return UsageError("expected keys and values that a machine can hold, got more",
                      "plan for fewer rows, sources, tokens, layers or heads");
  }
  plan.bytes = reservation::SessionBytes(plan.rows, self, cross);
  return plan;
}

absl::Status CheckPlan(const SessionPlan& plan, const Flags& flags, const Limits& limits) {
  const struct {
    const char* flag;
    std::int64_t value, most;
    const char* limit;
  } kChecked[] = {
      {"rows", plan.rows, limits.max_dim, "max_dim"},
      {"max_tokens", flags.max_tokens.value().value_or(0), limits.max_dim, "max_dim"},
      {"max_source_tokens", flags.max_source_tokens.value().value_or(0), limits.max_dim, "max_dim"},
      {"heads", flags.layer_heads.value().value_or(plan.layer.kv_heads), limits.max_dim, "max_dim"},
      {"head_dim", plan.layer.head_dim, limits.max_head_dim, "max_head_dim"},
      {"value_head_dim", plan.layer.value_head_dim, limits.max_head_dim, "max_head_dim"},
  };
  for (const auto& c : kChecked) {
    if (c.value <= c.most) continue;
    return WithAdvice(absl::FailedPreconditionError(absl::StrCat("--", c.flag, ": expected at most ", c.most,
                                                                 " (attnd's --", c.limit, " there), got ", c.value)),
                      "the server would refuse such a session; `attnctl info` shows its limits");
  }
  return absl::OkStatus();
}

SessionBudget BudgetOf(std::int64_t bytes) {
  SessionBudget budget;
  budget.total = bytes;
  return budget;
}

std::optional<SessionBudget> BudgetOf(const ServerInfo& server) {
  if (!server.memory.has_value() || !server.sessions.has_value() || server.sessions->max_peer_sessions == 0) {
    return std::nullopt;
  }
  SessionBudget budget;
  budget.total = server.memory->total_bytes;
  budget.used = server.memory->used_bytes;
  budget.shares = server.memory->max_peer_bytes < server.memory->total_bytes;
  budget.sessions = server.sessions;
  return budget;
}

// With shares, a caller may hold at most what stays free, so it can take half of what is free.
std::int64_t MostOfOneCaller(const SessionBudget& budget) { return budget.shares ? Free(budget) / 2 : Free(budget); }

Fit FitOfOneCaller(std::int64_t bytes, const SessionBudget& budget) {
  Fit fit{MostOfOneCaller(budget) / bytes, Bound::kMemory};
  if (!budget.sessions.has_value()) return fit;
  fit = Least(fit, LeftInAll(*budget.sessions));
  return Least(fit, {budget.sessions->max_peer_sessions, Bound::kMaxPeerSessions});
}

// With shares, as much as the last caller takes must stay free.
Fit FitOfAllCallers(std::int64_t bytes, const SessionBudget& budget) {
  const std::int64_t kept_free = budget.shares ? 1 : 0;
  const Fit fit{std::max<std::int64_t>(0, Free(budget) / bytes - kept_free), Bound::kMemory};
  return budget.sessions.has_value() ? Least(fit, LeftInAll(*budget.sessions)) : fit;
}

}  // namespace attnd::ctl
