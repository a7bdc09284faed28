#include "client/attnctl/session_plan_text.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/attnctl/columns.h"
#include "client/attnctl/quantities.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"

namespace attnd::ctl {
namespace {

using reservation::KeptBytes;
using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

std::string DtypeName(tensor::DType dtype) { return absl::AsciiStrToLower(tensor::NameOf(dtype)); }

std::string Count(std::int64_t count, const char* what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

Row Part(const char* name, std::int64_t bytes, const std::string& formula) {
  return {absl::StrCat("  ", name), absl::StrCat(bytes), BytesText(bytes), formula};
}

Row PoolPart(const char* name, const char* sequence, const KeptBytes& kept) {
  const bool whole = kept.page_bytes * kept.pages == kept.pool;
  return Part(name, kept.pool,
              absl::StrCat(Count(kept.sequences, sequence), " x (", kept.most_tokens, " / ", reservation::kPageTokens,
                           " + 2 = ", kept.pages / kept.sequences, ") pages x ", kept.page_bytes, " bytes",
                           whole ? "" : ", rounded up to the system's pages"));
}

std::string PageFormula(const SessionPlan& plan, std::int64_t layers, const char* kind, const KeptBytes& kept) {
  return absl::StrCat("  a page of the ", kind, " layers: ", reservation::kPageTokens, " tokens x ",
                      Count(layers, "layer"), " x ", plan.layer.kv_heads, " key heads x (", plan.layer.head_dim, " + ",
                      plan.layer.value_head_dim, ") x ", tensor::SizeOf(plan.dtype), " bytes = ", kept.page_bytes,
                      " bytes\n");
}

std::string SessionText(const SessionPlan& plan) {
  const reservation::SessionBytes& bytes = plan.bytes;
  std::vector<Row> parts;
  std::int64_t pages = 0, lists = 0, lengths = 0;
  for (const auto& [kept, layers] :
       {std::pair(bytes.self, plan.self_layers), std::pair(bytes.cross, plan.cross_layers)}) {
    if (!kept.has_value()) continue;
    pages += kept->pages;
    lists += kept->lists;
    lengths += layers * kept->sequences;
  }
  if (bytes.self.has_value()) parts.push_back(PoolPart("rows", "row", *bytes.self));
  if (bytes.cross.has_value()) parts.push_back(PoolPart("sources", "source", *bytes.cross));
  parts.push_back(Part("lists", lists,
                       absl::StrCat(Count(pages, "page"), " x ", reservation::kListBytesOfPage, " + ",
                                    Count(lengths, "length"), " x ", reservation::kLengthBytes)));
  if (bytes.cross.has_value()) {
    parts.push_back(Part("key masks", bytes.key_masks,
                         absl::StrCat("(2 x ", Count(plan.sources, "source"), " + ", Count(plan.rows, "row"), ") x ",
                                      (bytes.cross->most_tokens + 7) / 8, " bytes")));
  }
  parts.push_back(
      Part("of each row", bytes.rows, absl::StrCat(Count(plan.rows, "row"), " x ", reservation::kRowBytes)));
  parts.push_back(Part("of any session", bytes.fixed, "its stream and messages"));
  std::string text = absl::StrCat("a session of ", Count(plan.rows, "row"),
                                  plan.sources > 0 ? absl::StrCat(" and ", Count(plan.sources, "source")) : "", " in ",
                                  DtypeName(plan.dtype), " reserves ", bytes.total(), " bytes (",
                                  BytesText(bytes.total()), "):\n", Columns(parts));
  if (bytes.self.has_value()) absl::StrAppend(&text, PageFormula(plan, plan.self_layers, "self", *bytes.self));
  if (bytes.cross.has_value()) absl::StrAppend(&text, PageFormula(plan, plan.cross_layers, "cross", *bytes.cross));
  return text;
}

// Describes the limit that determines the count; returns `memory` if it is the memory.
std::string Why(const Fit& fit, const std::string& memory) {
  switch (fit.bound) {
    case Bound::kMaxSessions:
      return "no more may be open (attnd's --max_sessions)";
    case Bound::kMaxPeerSessions:
      return "no more may be one caller's (attnd's --max_peer_sessions)";
    case Bound::kMemory:
      break;
  }
  return memory;
}

std::string WhyOfOneCaller(const Fit& fit, const SessionBudget& budget) {
  const std::string most = BytesText(MostOfOneCaller(budget));
  if (fit.sessions == 0) return Why(fit, absl::StrCat("one takes more than the ", most, " that a caller can have"));
  return Why(fit, budget.shares ? absl::StrCat("which has none yet, and may hold no more than stays free: ", most)
                                : absl::StrCat("which may hold all that is free: ", most));
}

std::string BudgetText(const SessionPlan& plan, const SessionBudget& budget, const std::string& server) {
  const std::int64_t bytes = plan.bytes.total();
  const Fit one = FitOfOneCaller(bytes, budget), all = FitOfAllCallers(bytes, budget);
  std::string text =
      server.empty() ? absl::StrCat("how many fit into ", BytesText(budget.total), " (attnd's --max_inflight_bytes):\n")
                     : absl::StrCat("how many more fit at ", server, ", where ", BytesText(budget.used), " of ",
                                    BytesText(budget.total), " are in use (attnd's --max_inflight_bytes):\n");
  absl::StrAppend(&text,
                  Columns({{"  one caller", absl::StrCat(one.sessions), WhyOfOneCaller(one, budget)},
                           {"  all callers", absl::StrCat(all.sessions), Why(all, "at best, where each has few")}}));
  if (budget.sessions.has_value()) {
    absl::StrAppend(&text, "open there: ", Count(budget.sessions->open, "session"), ", of at most ",
                    budget.sessions->max_sessions, " (", budget.sessions->max_peer_sessions, " of one caller)\n");
  } else {
    SessionBudget unshared = budget;
    unshared.shares = false;
    absl::StrAppend(&text, "one caller gets ", FitOfOneCaller(bytes, unshared).sessions,
                    " with attnd's --nopeer_shares; its --max_sessions and --max_peer_sessions may allow fewer\n");
  }
  return text;
}

Json PartsJson(const std::optional<KeptBytes>& kept) {
  if (!kept.has_value()) return nullptr;
  return {{"page_bytes", kept->page_bytes},
          {"pages", kept->pages},
          {"pool_bytes", kept->pool},
          {"list_bytes", kept->lists}};
}

}  // namespace

std::string TextOfPlan(const SessionPlan& plan, const SessionBudget& budget, const std::string& server) {
  return absl::StrCat(SessionText(plan), "\n", BudgetText(plan, budget, server));
}

std::string JsonOfPlan(const SessionPlan& plan, const SessionBudget& budget) {
  const std::int64_t bytes = plan.bytes.total();
  Json json = {{"rows", plan.rows},
               {"sources", plan.sources},
               {"self_layers", plan.self_layers},
               {"cross_layers", plan.cross_layers},
               {"max_tokens", plan.bytes.self.has_value() ? plan.bytes.self->most_tokens : 0},
               {"max_source_tokens", plan.bytes.cross.has_value() ? plan.bytes.cross->most_tokens : 0},
               {"kv_heads", plan.layer.kv_heads},
               {"head_dim", plan.layer.head_dim},
               {"value_head_dim", plan.layer.value_head_dim},
               {"dtype", DtypeName(plan.dtype)},
               {"reserved_bytes", bytes}};
  json["parts"] = {{"rows", PartsJson(plan.bytes.self)},
                   {"sources", PartsJson(plan.bytes.cross)},
                   {"key_mask_bytes", plan.bytes.key_masks},
                   {"row_bytes", plan.bytes.rows},
                   {"fixed_bytes", plan.bytes.fixed}};
  json["budget"] = {{"total_bytes", budget.total}, {"used_bytes", budget.used}, {"peer_shares", budget.shares}};
  if (budget.sessions.has_value()) {
    json["budget"]["open_sessions"] = budget.sessions->open;
    json["budget"]["max_sessions"] = budget.sessions->max_sessions;
    json["budget"]["max_peer_sessions"] = budget.sessions->max_peer_sessions;
  }
  json["fits"] = {{"one_caller", FitOfOneCaller(bytes, budget).sessions},
                  {"all_callers", FitOfAllCallers(bytes, budget).sessions}};
  return json.dump(2) + "\n";
}

}  // namespace attnd::ctl
