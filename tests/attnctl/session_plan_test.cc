// What fits is held against the ledger that a server takes sessions from; what one reserves, by the server itself, is
// in tests/e2e/session_plan_test.cc.
#include "client/attnctl/session_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/line.h"
#include "client/attnctl/session_plan_text.h"
#include "client/attnctl/usage.h"
#include "memory/ledger.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

absl::StatusOr<SessionPlan> PlanOfLine(Words words, Flags& flags) {
  words.insert(words.begin(), {"sessions", "plan"});
  if (const absl::StatusOr<Line> line = ParseLine(words, flags); !line.ok()) return line.status();
  return PlanOf(flags);
}

absl::StatusOr<SessionPlan> PlanOfLine(const Words& words) {
  Flags flags;
  return PlanOfLine(words, flags);
}

// Of docs/sessions.md.
Words T5Small() {
  return {"--rows",  "16",  "--sources",  "4",  "--self_layers",       "6",   "--cross_layers", "6",
          "--heads", "8",   "--head_dim", "64", "--max_source_tokens", "512", "--max_tokens",   "256",
          "--dtype", "bf16"};
}

TEST(SessionPlan, IsOfTheFlags) {
  const absl::StatusOr<SessionPlan> plan = PlanOfLine(T5Small());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->rows, 16);
  EXPECT_EQ(plan->sources, 4);
  EXPECT_EQ(plan->layer.kv_heads, 8);
  EXPECT_EQ(plan->layer.value_head_dim, 64);
  EXPECT_EQ(plan->bytes.self->pool, 72 << 20);
  EXPECT_EQ(plan->bytes.cross->pool, 30 << 20);
  EXPECT_EQ(plan->bytes.total(), 107000704);
}

TEST(SessionPlan, WhatIsLeftOutFollows) {
  const absl::StatusOr<SessionPlan> cross =
      PlanOfLine({"--rows", "4", "--cross_layers", "1", "--kv_heads", "2", "--head_dim", "8", "--value_head_dim", "16",
                  "--max_source_tokens", "9"});
  ASSERT_TRUE(cross.ok()) << cross.status();
  EXPECT_EQ(cross->sources, 1);
  EXPECT_EQ(cross->dtype, tensor::DType::kF32);
  EXPECT_FALSE(cross->bytes.self.has_value());
  EXPECT_EQ(cross->bytes.cross->page_bytes, 64 * 2 * (8 + 16) * 4);
  const absl::StatusOr<SessionPlan> self =
      PlanOfLine({"--self_layers", "1", "--heads", "8", "--kv_heads", "2", "--head_dim", "8", "--max_tokens", "9"});
  ASSERT_TRUE(self.ok()) << self.status();
  EXPECT_EQ(self->rows, 1);
  EXPECT_EQ(self->sources, 0);
  EXPECT_EQ(self->layer.kv_heads, 2);
}

TEST(SessionPlan, RefusesWhatNoServerTakes) {
  const struct {
    Words words;
    const char* message;
  } kCases[] = {
      {{}, "`attnctl sessions plan` needs --self_layers or --cross_layers"},
      {{"--self_layers", "1"}, "`attnctl sessions plan` needs --max_tokens with --self_layers"},
      {{"--cross_layers", "1"}, "`attnctl sessions plan` needs --max_source_tokens with --cross_layers"},
      {{"--self_layers", "1", "--max_tokens", "9", "--max_source_tokens", "9"},
       "--max_source_tokens: expected none without --cross_layers"},
      {{"--cross_layers", "1", "--max_tokens", "9", "--max_source_tokens", "9"},
       "--max_tokens: expected none without --self_layers"},
      {{"--self_layers", "1", "--max_tokens", "9", "--sources", "1"},
       "--sources: expected none without --cross_layers"},
      {{"--self_layers", "1", "--max_tokens", "9"}, "`attnctl sessions plan` needs --heads"},
      {{"--self_layers", "1", "--max_tokens", "9", "--heads", "8"}, "`attnctl sessions plan` needs --head_dim"},
      {{"--self_layers", "1024", "--cross_layers", "1"},
       "--self_layers and --cross_layers: expected at most 1024 layers together, got 1025"},
      {{"--cross_layers", "1", "--max_source_tokens", "9", "--heads", "8", "--head_dim", "8", "--sources", "2"},
       "--sources: expected 1 to 1 (--rows), got 2"},
      {{"--self_layers", "1", "--max_tokens", "9", "--heads", "8", "--kv_heads", "3", "--head_dim", "8"},
       "--kv_heads: expected a divisor of --heads, which is 8, got 3"},
      {{"--self_layers", "1024", "--rows", "65536", "--max_tokens", "2147483647", "--heads", "4096", "--head_dim",
        "4096"},
       "expected keys and values that a machine can hold, got more"},
  };
  for (const auto& c : kCases) {
    const absl::Status refused = PlanOfLine(c.words).status();
    EXPECT_TRUE(IsUsageError(refused)) << refused;
    EXPECT_EQ(refused.message(), c.message);
    EXPECT_NE(refused.message(), AdviceOf(refused));
  }
}

TEST(SessionPlan, AServersLimitsAreNamed) {
  Flags flags;
  const absl::StatusOr<SessionPlan> plan = PlanOfLine(T5Small(), flags);
  ASSERT_TRUE(plan.ok()) << plan.status();
  Limits limits;
  limits.max_dim = 512;
  limits.max_head_dim = 64;
  EXPECT_TRUE(CheckPlan(*plan, flags, limits).ok());
  limits.max_dim = 511;
  EXPECT_EQ(CheckPlan(*plan, flags, limits).message(),
            "--max_source_tokens: expected at most 511 (attnd's --max_dim there), got 512");
  limits.max_dim = 512;
  limits.max_head_dim = 63;
  EXPECT_EQ(CheckPlan(*plan, flags, limits).message(),
            "--head_dim: expected at most 63 (attnd's --max_head_dim there), got 64");
}

// Takes sessions of `bytes` until there is no room, of one caller or each of a new one, as a server does.
std::int64_t Opened(std::int64_t bytes, std::int64_t total, std::int64_t used, bool shares, bool one_caller) {
  memory::Ledger ledger({.total = total, .shares = shares});
  std::vector<memory::Ticket> tickets;
  // Of many others, so that none of them holds much.
  for (std::int64_t i = 0; i < used; ++i) {
    auto taken = ledger.Take(ledger.AccountOf(absl::StrCat("other ", i)), 1);
    tickets.push_back(std::get<memory::Ticket>(std::move(taken)));
  }
  for (std::int64_t count = 0;; ++count) {
    auto taken = ledger.Take(ledger.AccountOf(one_caller ? "caller" : absl::StrCat("caller ", count)), bytes);
    if (std::holds_alternative<memory::LedgerRefusal>(taken)) return count;
    tickets.push_back(std::get<memory::Ticket>(std::move(taken)));
  }
}

TEST(SessionPlan, FitsAreThoseOfTheLedger) {
  for (const bool shares : {true, false}) {
    for (const std::int64_t total : {100, 101, 997}) {
      for (const std::int64_t used : {0, 1, 30, 49}) {
        for (const std::int64_t bytes : {1, 2, 7, 25, 26, 33, 49, 50, 51, 99, 100, 101, 2000}) {
          SessionBudget budget{total, used, shares, std::nullopt};
          const std::string what = absl::StrCat(total, " total, ", used, " used, ", bytes, " bytes, shares ", shares);
          EXPECT_EQ(FitOfOneCaller(bytes, budget).sessions, Opened(bytes, total, used, shares, true)) << what;
          EXPECT_EQ(FitOfAllCallers(bytes, budget).sessions, Opened(bytes, total, used, shares, false)) << what;
        }
      }
    }
  }
}

TEST(SessionPlan, NumbersOfSessionsBoundThemToo) {
  SessionBudget budget{1000, 0, true, SessionUse{.open = 7, .evicted = 0, .max_sessions = 20, .max_peer_sessions = 5}};
  EXPECT_EQ(FitOfOneCaller(1, budget).sessions, 5);
  EXPECT_EQ(FitOfOneCaller(1, budget).bound, Bound::kMaxPeerSessions);
  EXPECT_EQ(FitOfAllCallers(1, budget).sessions, 13);
  EXPECT_EQ(FitOfAllCallers(1, budget).bound, Bound::kMaxSessions);
  budget.sessions->open = 18;
  EXPECT_EQ(FitOfOneCaller(1, budget).sessions, 2);
  EXPECT_EQ(FitOfOneCaller(1, budget).bound, Bound::kMaxSessions);
  budget.sessions->open = 0;
  EXPECT_EQ(FitOfOneCaller(250, budget).sessions, 2);
  EXPECT_EQ(FitOfOneCaller(250, budget).bound, Bound::kMemory);
}

TEST(SessionPlan, ABudgetIsThatOfAServer) {
  ServerInfo server;
  EXPECT_FALSE(BudgetOf(server).has_value());
  server.memory = MemoryUse{.total_bytes = 100, .used_bytes = 10, .max_peer_bytes = 50};
  server.sessions = SessionUse{.open = 1};
  EXPECT_FALSE(BudgetOf(server).has_value()) << "of before these fields";
  server.sessions->max_sessions = server.sessions->max_peer_sessions = 3;
  const std::optional<SessionBudget> budget = BudgetOf(server);
  ASSERT_TRUE(budget.has_value());
  EXPECT_EQ(budget->total, 100);
  EXPECT_EQ(budget->used, 10);
  EXPECT_TRUE(budget->shares);
  server.memory->max_peer_bytes = 100;
  EXPECT_FALSE(BudgetOf(server)->shares);
}

TEST(SessionPlan, TextShowsTheFormula) {
  const absl::StatusOr<SessionPlan> plan = PlanOfLine(T5Small());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string text = TextOfPlan(*plan, BudgetOf(std::int64_t{4} << 30), "");
  EXPECT_THAT(text, HasSubstr("16 rows and 4 sources in bf16 reserves 107000704 bytes (102.0 MiB):\n"));
  EXPECT_THAT(text, HasSubstr("16 rows x (256 / 64 + 2 = 6) pages x 786432 bytes\n"));
  EXPECT_THAT(text, HasSubstr("4 sources x (512 / 64 + 2 = 10) pages x 786432 bytes\n"));
  EXPECT_THAT(text, HasSubstr("136 pages x 64 + 120 lengths x 16\n"));
  EXPECT_THAT(text, HasSubstr("1536      1.5 KiB   (2 x 4 sources + 16 rows) x 64 bytes\n"));
  EXPECT_THAT(text, HasSubstr("64 tokens x 6 layers x 8 key heads x (64 + 64) x 2 bytes = 786432 bytes\n"));
  EXPECT_THAT(text,
              HasSubstr("  one caller   20  which has none yet, and may hold no more than stays free: 2.0 GiB\n"));
  EXPECT_THAT(text, HasSubstr("  all callers  39 "));
  EXPECT_THAT(text, HasSubstr("one caller gets 40 with attnd's --nopeer_shares"));
  EXPECT_THAT(text, Not(HasSubstr("rounded up")));
}

TEST(SessionPlan, TextOfASmallOneSaysWhatIsRounded) {
  const absl::StatusOr<SessionPlan> plan =
      PlanOfLine({"--self_layers", "1", "--heads", "1", "--head_dim", "8", "--max_tokens", "9"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  SessionBudget budget{1 << 30, 1 << 20, true, SessionUse{1, 0, 1024, 256}};
  const std::string text = TextOfPlan(*plan, budget, "unix:/x");
  EXPECT_THAT(text, HasSubstr("a session of 1 row in f32 reserves "));
  EXPECT_THAT(text, HasSubstr("65536  64.0 KiB  1 row x (9 / 64 + 2 = 2) pages x 4096 bytes, rounded up"));
  EXPECT_THAT(text, HasSubstr("at unix:/x, where 1.0 MiB of 1.0 GiB are in use"));
  EXPECT_THAT(text, HasSubstr("256   no more may be one caller's (attnd's --max_peer_sessions)"));
  EXPECT_THAT(text, HasSubstr("1023  no more may be open (attnd's --max_sessions)"));
  EXPECT_THAT(text, HasSubstr("open there: 1 session, of at most 1024 (256 of one caller)\n"));
  EXPECT_THAT(text, Not(HasSubstr("key masks")));
}

TEST(SessionPlan, TextSaysWhyNoneFits) {
  const absl::StatusOr<SessionPlan> plan = PlanOfLine(T5Small());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(TextOfPlan(*plan, BudgetOf(200 << 20), ""),
              HasSubstr("  one caller   0  one takes more than the 100.0 MiB that a caller can have\n"));
  SessionBudget budget = BudgetOf(200 << 20);
  budget.shares = false;
  EXPECT_THAT(TextOfPlan(*plan, budget, ""),
              HasSubstr("  one caller   1  which may hold all that is free: 200.0 MiB\n"));
}

TEST(SessionPlan, JsonHasTheSameNumbers) {
  const absl::StatusOr<SessionPlan> plan = PlanOfLine(T5Small());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto json = nlohmann::json::parse(JsonOfPlan(*plan, BudgetOf(std::int64_t{4} << 30)));
  EXPECT_EQ(json["reserved_bytes"], 107000704);
  EXPECT_EQ(json["parts"]["rows"]["pages"], 96);
  EXPECT_EQ(json["parts"]["sources"]["pool_bytes"], 30 << 20);
  EXPECT_EQ(json["fits"]["one_caller"], 20);
  EXPECT_EQ(json["fits"]["all_callers"], 39);
  std::int64_t sum = 0;
  for (const char* part : {"rows", "sources"}) {
    for (const char* bytes : {"pool_bytes", "list_bytes"}) sum += json["parts"][part][bytes].get<std::int64_t>();
  }
  for (const char* part : {"key_mask_bytes", "row_bytes", "fixed_bytes"}) {
    sum += json["parts"][part].get<std::int64_t>();
  }
  EXPECT_EQ(sum, json["reserved_bytes"]);
}

}  // namespace
}  // namespace attnd::ctl
