#include "memory/ledger.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::memory {
namespace {

using Reason = LedgerRefusal::Reason;
using testing::IsEmpty;

// Takes what it must be given.
Ticket MustTake(Ledger& ledger, const std::shared_ptr<Account>& account, std::int64_t bytes) {
  std::variant<Ticket, LedgerRefusal> taken = ledger.Take(account, bytes);
  EXPECT_TRUE(std::holds_alternative<Ticket>(taken)) << bytes << " bytes of " << account->held_bytes();
  return std::holds_alternative<Ticket>(taken) ? std::get<Ticket>(std::move(taken)) : Ticket();
}

// Nothing if it is given.
std::optional<LedgerRefusal> Refused(Ledger& ledger, const std::shared_ptr<Account>& account, std::int64_t bytes) {
  const std::variant<Ticket, LedgerRefusal> taken = ledger.Take(account, bytes);
  if (const auto* refusal = std::get_if<LedgerRefusal>(&taken)) return *refusal;
  return std::nullopt;
}

// Takes byte by byte for as long as it is given any.
std::vector<Ticket> TakeAll(Ledger& ledger, const std::shared_ptr<Account>& account) {
  std::vector<Ticket> tickets;
  while (true) {
    std::variant<Ticket, LedgerRefusal> taken = ledger.Take(account, 1);
    if (!std::holds_alternative<Ticket>(taken)) return tickets;
    tickets.push_back(std::get<Ticket>(std::move(taken)));
  }
}

TEST(LedgerTest, TicketsHoldTheirBytesUntilTheyAreDestroyed) {
  Ledger ledger({.total = 200});
  const auto peer = ledger.AccountOf("a");
  {
    const Ticket first = MustTake(ledger, peer, 60);
    const Ticket second = MustTake(ledger, peer, 40);
    EXPECT_EQ(ledger.used_bytes(), 100);
    EXPECT_EQ(peer->held_bytes(), 100);
    EXPECT_TRUE(Refused(ledger, peer, 1).has_value());
    EXPECT_FALSE(Refused(ledger, peer, 0).has_value());
  }
  EXPECT_EQ(ledger.used_bytes(), 0);
  EXPECT_EQ(peer->held_bytes(), 0);
  EXPECT_FALSE(Refused(ledger, peer, 100).has_value());
}

TEST(LedgerTest, TicketsMove) {
  Ledger ledger({.total = 200});
  const auto peer = ledger.AccountOf("a");
  Ticket first = MustTake(ledger, peer, 60);
  Ticket moved = std::move(first);
  EXPECT_EQ(first.bytes(), 0);  // NOLINT(bugprone-use-after-move): a moved ticket is empty
  EXPECT_EQ(moved.bytes(), 60);
  EXPECT_EQ(ledger.used_bytes(), 60);
  moved = MustTake(ledger, peer, 30);
  EXPECT_EQ(ledger.used_bytes(), 30) << "what the place held before is given back";
  Ticket& itself = moved;
  moved = std::move(itself);
  EXPECT_EQ(ledger.used_bytes(), 30);
  moved = Ticket();
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(LedgerTest, TicketsCanBeSplitAndGivenBackInPart) {
  Ledger ledger({.total = 200});
  const auto peer = ledger.AccountOf("a");
  Ticket whole = MustTake(ledger, peer, 100);
  {
    const Ticket part = whole.Split(30);
    EXPECT_EQ(part.bytes(), 30);
    EXPECT_EQ(whole.bytes(), 70);
    EXPECT_EQ(ledger.used_bytes(), 100);
  }
  EXPECT_EQ(ledger.used_bytes(), 70);
  whole.GiveBack(50);
  EXPECT_EQ(ledger.used_bytes(), 20);
  whole.GiveBack(20);
  EXPECT_EQ(ledger.used_bytes(), 0);
  Ticket sum;
  sum.Add(MustTake(ledger, peer, 40));
  sum.Add(MustTake(ledger, peer, 2));
  sum.Add(Ticket());
  EXPECT_EQ(sum.bytes(), 42);
  EXPECT_EQ(ledger.used_bytes(), 42);
  sum = Ticket();
  EXPECT_EQ(ledger.used_bytes(), 0);
  Ticket none;
  none.GiveBack(0);
  EXPECT_EQ(none.Split(0).bytes(), 0);
}

TEST(LedgerTest, TicketsAndAccountsMayOutliveIt) {
  Ticket ticket;
  std::shared_ptr<Account> peer;
  {
    Ledger ledger({.total = 200});
    peer = ledger.AccountOf("a");
    ticket = MustTake(ledger, peer, 100);
  }
  EXPECT_EQ(peer->held_bytes(), 100);
  ticket = Ticket();
  EXPECT_EQ(peer->held_bytes(), 0);
}

TEST(LedgerTest, APeerAloneHasHalf) {
  Ledger ledger({.total = 1000});
  EXPECT_EQ(ledger.most_for_one(), 500);
  EXPECT_EQ(TakeAll(ledger, ledger.AccountOf("a")).size(), 500U);
  EXPECT_FALSE(Refused(ledger, ledger.AccountOf("a"), 500).has_value());
}

TEST(LedgerTest, OneThatCameFirstLeavesRoomForThoseThatComeLater) {
  Ledger ledger({.total = 1024});
  const std::vector<Ticket> first = TakeAll(ledger, ledger.AccountOf("first"));
  const std::vector<Ticket> second = TakeAll(ledger, ledger.AccountOf("second"));
  const std::vector<Ticket> third = TakeAll(ledger, ledger.AccountOf("third"));
  EXPECT_EQ(first.size(), 512U);
  EXPECT_EQ(second.size(), 256U);
  EXPECT_EQ(third.size(), 128U);
  EXPECT_TRUE(Refused(ledger, ledger.AccountOf("first"), 1).has_value()) << "who holds most is refused first";
  EXPECT_FALSE(Refused(ledger, ledger.AccountOf("fourth"), 64).has_value());
}

TEST(LedgerTest, ThoseThatComeTogetherHaveTheSame) {
  for (const int peers : {2, 3, 7, 50}) {
    Ledger ledger({.total = 10200});
    std::vector<std::vector<Ticket>> held(static_cast<std::size_t>(peers));
    for (bool any = true; any;) {
      any = false;
      for (int p = 0; p < peers; ++p) {
        std::variant<Ticket, LedgerRefusal> taken = ledger.Take(ledger.AccountOf("peer" + std::to_string(p)), 1);
        if (!std::holds_alternative<Ticket>(taken)) continue;
        held[static_cast<std::size_t>(p)].push_back(std::get<Ticket>(std::move(taken)));
        any = true;
      }
    }
    const auto share = 10200.0 / (peers + 1);
    for (const std::vector<Ticket>& of_one : held) EXPECT_NEAR(static_cast<double>(of_one.size()), share, 1) << peers;
  }
}

TEST(LedgerTest, WhatOneGivesBackTheOthersMayHave) {
  Ledger ledger({.total = 1000});
  std::vector<Ticket> first = TakeAll(ledger, ledger.AccountOf("first"));
  EXPECT_TRUE(Refused(ledger, ledger.AccountOf("second"), 300).has_value());
  first.clear();
  EXPECT_FALSE(Refused(ledger, ledger.AccountOf("second"), 300).has_value());
}

// The negative control of the shares.
TEST(LedgerTest, WithoutSharesTheFirstTakesEverything) {
  Ledger ledger({.total = 1000, .shares = false});
  EXPECT_EQ(ledger.most_for_one(), 1000);
  const std::vector<Ticket> first = TakeAll(ledger, ledger.AccountOf("first"));
  EXPECT_EQ(first.size(), 1000U);
  EXPECT_THAT(TakeAll(ledger, ledger.AccountOf("second")), IsEmpty());
}

TEST(LedgerTest, RefusalsSayWhichBoundWasMet) {
  Ledger ledger({.total = 1000});
  const auto first = ledger.AccountOf("first");
  const auto second = ledger.AccountOf("second");
  const Ticket held = MustTake(ledger, first, 300);

  const LedgerRefusal never = *Refused(ledger, first, 501);
  EXPECT_EQ(never.reason, Reason::kNever);
  EXPECT_EQ(never.most, 500);
  EXPECT_EQ(never.come_back.count(), 0);

  const LedgerRefusal share = *Refused(ledger, first, 201);
  EXPECT_EQ(share.reason, Reason::kShare);
  EXPECT_EQ(share.asked, 201);
  EXPECT_EQ(share.held, 300);
  EXPECT_EQ(share.used, 300);
  EXPECT_EQ(share.most, 500);
  EXPECT_GT(share.come_back.count(), 0);
  EXPECT_FALSE(Refused(ledger, first, 200).has_value()) << "what it says may be taken";

  const Ticket more = MustTake(ledger, second, 350);
  const LedgerRefusal total = *Refused(ledger, second, 351);
  EXPECT_EQ(total.reason, Reason::kTotal);
  EXPECT_EQ(total.most, 1000);
  EXPECT_EQ(total.used, 650);

  const Ledger::Usage usage = ledger.GetUsage();
  EXPECT_EQ(usage.refused_as_never_fitting, 1);
  EXPECT_EQ(usage.refused_by_share, 1);
  EXPECT_EQ(usage.refused_by_total, 1);
}

TEST(LedgerTest, UsageCountsPeersAndTheLargest) {
  Ledger ledger({.total = 1000});
  {
    const Ticket a = MustTake(ledger, ledger.AccountOf("a"), 200);
    const Ticket b = MustTake(ledger, ledger.AccountOf("b"), 150);
    ledger.AccountOf("holds nothing");
    const Ledger::Usage usage = ledger.GetUsage();
    EXPECT_EQ(usage.total, 1000);
    EXPECT_EQ(usage.used, 350);
    EXPECT_EQ(usage.peers, 2);
    EXPECT_EQ(usage.largest_peer, 200);
  }
  ledger.TakePeakBytes();
  const Ledger::Usage after = ledger.GetUsage();
  EXPECT_EQ(after.used, 0);
  EXPECT_EQ(after.peers, 0);
  EXPECT_EQ(after.largest_peer, 0);
  EXPECT_EQ(after.peak, 350) << "since the start, whoever takes the intervals' peaks";
}

TEST(LedgerTest, PeakIsTheMostHeldSinceItWasTaken) {
  Ledger ledger({.total = 200});
  const auto peer = ledger.AccountOf("a");
  {
    const Ticket first = MustTake(ledger, peer, 60);
    const Ticket second = MustTake(ledger, peer, 30);
    EXPECT_EQ(ledger.TakePeakBytes(), 90);
  }
  const Ticket held = MustTake(ledger, peer, 10);
  EXPECT_EQ(ledger.TakePeakBytes(), 90) << "held when the peak was last taken";
  EXPECT_EQ(ledger.TakePeakBytes(), 10);
}

TEST(LedgerTest, AccountsAreKeptWhileSomethingIsHeldAndForgottenLater) {
  Ledger ledger({.total = 1000000});
  const Ticket held = MustTake(ledger, ledger.AccountOf("holder"), 7);
  const std::weak_ptr<Account> unused = ledger.AccountOf("unused");
  for (int i = 0; i < 1000; ++i) ledger.AccountOf("passer-by " + std::to_string(i));
  EXPECT_EQ(ledger.AccountOf("holder")->held_bytes(), 7);
  EXPECT_TRUE(unused.expired()) << "a thousand addresses leave nothing behind";
}

TEST(LedgerTest, HugeSizesDoNotOverflow) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  for (const bool shares : {true, false}) {
    Ledger ledger({.total = kMost, .shares = shares});
    const auto peer = ledger.AccountOf("a");
    const Ticket most = MustTake(ledger, peer, ledger.most_for_one());
    EXPECT_TRUE(Refused(ledger, peer, kMost).has_value());
    EXPECT_TRUE(Refused(ledger, peer, ledger.most_for_one()).has_value());
    EXPECT_TRUE(Refused(ledger, peer, 1).has_value());
  }
}

TEST(LedgerTest, NothingFitsIntoNothing) {
  Ledger ledger({.total = 0});
  EXPECT_EQ(Refused(ledger, ledger.AccountOf("a"), 1)->reason, Reason::kNever);
  EXPECT_FALSE(Refused(ledger, ledger.AccountOf("a"), 0).has_value());
}

// Under ThreadSanitizer in scripts/test-threads.sh.
TEST(LedgerTest, ThreadsNeverTakeMoreThanThereIsAndLeaveNothing) {
  constexpr std::int64_t kTotal = 100;
  Ledger ledger({.total = kTotal});
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger, &wrong, t] {
      for (int i = 0; i < 5000; ++i) {
        // Two threads for each of two peers, and names that come and go.
        const auto peer = ledger.AccountOf(i % 10 == 0 ? std::to_string(i) : std::to_string(t % 2));
        std::variant<Ticket, LedgerRefusal> one = ledger.Take(peer, i % 37);
        std::variant<Ticket, LedgerRefusal> two = ledger.Take(peer, i % 11);
        if (ledger.used_bytes() > kTotal) wrong.store(true);
        if (auto* const ticket = std::get_if<Ticket>(&one)) const Ticket part = ticket->Split(ticket->bytes() / 2);
        if (i % 100 == 0) static_cast<void>(ledger.GetUsage());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong.load());
  const Ledger::Usage usage = ledger.GetUsage();
  EXPECT_EQ(usage.used, 0);
  EXPECT_EQ(usage.peers, 0);
  EXPECT_LE(usage.peak, kTotal);
  EXPECT_EQ(ledger.AccountOf("0")->held_bytes(), 0);
}

// Many threads of one peer together stay within its share.
TEST(LedgerTest, ThreadsOfOnePeerStayWithinItsShare) {
  Ledger ledger({.total = 100});
  const auto peer = ledger.AccountOf("a");
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        const std::variant<Ticket, LedgerRefusal> taken = ledger.Take(peer, 20);
        if (ledger.used_bytes() > ledger.most_for_one()) wrong.store(true);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong.load());
  EXPECT_EQ(ledger.used_bytes(), 0);
}

}  // namespace
}  // namespace attnd::memory
