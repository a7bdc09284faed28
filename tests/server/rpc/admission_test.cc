#include "server/rpc/admission.h"

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(AdmissionTest, HoldsBytesUntilTheTicketIsDestroyed) {
  memory::Ledger ledger({.total = 200});
  const auto peer = ledger.AccountOf("a");
  absl::StatusOr<memory::Ticket> first = Admit(ledger, peer, 60);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Admit(ledger, peer, 41).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ledger.used_bytes(), 60);
  first = absl::CancelledError();
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(AdmissionTest, ARefusalByTheTotalNamesItAndWhatOthersHold) {
  memory::Ledger ledger({.total = 100, .shares = false});
  const auto held = Admit(ledger, ledger.AccountOf("a"), 30);
  const absl::Status refused = Admit(ledger, ledger.AccountOf("b"), 71).status();
  EXPECT_EQ(refused.message(),
            "request: expected at most 100 bytes in flight (--max_inflight_bytes), got 71 bytes beside the 30 of other "
            "calls");
  EXPECT_TRUE(DetailOf(refused)->has_retry_delay());
  EXPECT_THAT(ToGrpc(refused).error_details(), HasSubstr("google.rpc.RetryInfo"));
}

TEST(AdmissionTest, ARefusalByTheShareNamesItAndWhatThePeerHolds) {
  memory::Ledger ledger({.total = 100});
  const auto of_another = Admit(ledger, ledger.AccountOf("another"), 30);
  const auto held = Admit(ledger, ledger.AccountOf("peer"), 20);
  const absl::Status refused = Admit(ledger, ledger.AccountOf("peer"), 16, 0, "answer").status();
  EXPECT_EQ(refused.message(),
            "answer: expected at most 35 bytes for one peer while 50 of 100 are free (--max_inflight_bytes, "
            "--peer_shares), got 16 bytes beside the 20 of the same peer");
  EXPECT_TRUE(DetailOf(refused)->has_retry_delay());
  EXPECT_TRUE(Admit(ledger, ledger.AccountOf("peer"), 15).ok()) << "what it says is given";
}

TEST(AdmissionTest, WhatCanNeverFitIsToldSoAndNotToComeBack) {
  memory::Ledger ledger({.total = 100});
  const absl::Status refused = Admit(ledger, ledger.AccountOf("a"), 51).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(),
            "request: expected at most 50 bytes, the half that one peer can have of the 100 bytes in flight "
            "(--max_inflight_bytes), got 51 bytes, which can never fit");
  EXPECT_FALSE(DetailOf(refused)->has_retry_delay());
  EXPECT_THAT(ToGrpc(refused).error_details(), Not(HasSubstr("RetryInfo")));

  // What the same request holds counts.
  const auto held = Admit(ledger, ledger.AccountOf("a"), 30);
  EXPECT_THAT(std::string(Admit(ledger, ledger.AccountOf("a"), 21, 30).status().message()),
              HasSubstr("got 51 bytes, which can never fit"));
  EXPECT_TRUE(Admit(ledger, ledger.AccountOf("a"), 20, 30).ok());

  memory::Ledger unshared({.total = 100, .shares = false});
  EXPECT_EQ(Admit(unshared, unshared.AccountOf("a"), 101).status().message(),
            "request: expected at most 100 bytes in flight (--max_inflight_bytes), got 101 bytes, which can never fit");
}

// Each refusal blames the field, says when to come back as the ledger does, and holds nothing.
TEST(AdmissionTest, EveryRefusalIsTheLedgersOwn) {
  using Reason = memory::LedgerRefusal::Reason;
  const struct {
    Reason reason;
    bool shares;
    std::int64_t others;  // bytes that another peer holds
    std::int64_t held;    // bytes that the request holds
    std::int64_t bytes;
  } kCases[] = {{Reason::kNever, true, 0, 0, 501},   {Reason::kNever, true, 0, 300, 201},
                {Reason::kNever, false, 0, 0, 1001}, {Reason::kNever, false, 0, 1, 1000},
                {Reason::kTotal, false, 1, 0, 1000}, {Reason::kTotal, false, 600, 300, 101},
                {Reason::kShare, true, 100, 0, 451}, {Reason::kShare, true, 100, 300, 151}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.others << " " << c.held << " " << c.bytes);
    memory::Ledger ledger({.total = 1000, .shares = c.shares});
    const auto others = Admit(ledger, ledger.AccountOf("another"), c.others);
    const auto held = Admit(ledger, ledger.AccountOf("peer"), c.held);
    ASSERT_TRUE(others.ok() && held.ok());
    const auto expected = std::get<memory::LedgerRefusal>(ledger.Take(ledger.AccountOf("peer"), c.bytes, c.held));
    ASSERT_EQ(expected.reason, c.reason);
    const absl::Status refused = Admit(ledger, ledger.AccountOf("peer"), c.bytes, c.held, "the field").status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    ASSERT_TRUE(DetailOf(refused).has_value());
    EXPECT_EQ(DetailOf(refused)->field(), "the field");
    EXPECT_EQ(RetryDelayOf(refused).has_value(), c.reason != Reason::kNever);
    if (c.reason != Reason::kNever) {
      EXPECT_GT(expected.come_back.count(), 0);
      EXPECT_EQ(*RetryDelayOf(refused), absl::FromChrono(expected.come_back));
    }
    EXPECT_EQ(ledger.used_bytes(), c.others + c.held) << "a refusal holds nothing";
    // One byte less is admitted.
    const auto admitted = Admit(ledger, ledger.AccountOf("peer"), c.bytes - 1, c.held);
    ASSERT_TRUE(admitted.ok()) << admitted.status();
    EXPECT_EQ(admitted->bytes(), c.bytes - 1);
    EXPECT_EQ(ledger.AccountOf("peer")->held_bytes(), c.held + c.bytes - 1);
  }
}

}  // namespace
}  // namespace attnd::server
