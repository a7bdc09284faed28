// A ticket takes what it says, once, and gives it back, once, however it ends.
#include "bias/table_ticket.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "bias/bias_table.h"

namespace attnd::bias {
namespace {

// Counts what tickets hold of it, up to `most`.
struct Bank {
  std::int64_t most = INT64_MAX;
  std::int64_t held = 0;

  TableTicket Ticket() {
    return TableTicket([this](std::int64_t bytes) {
      if (bytes > most - held) return absl::ResourceExhaustedError("full");
      held += bytes;
      return absl::OkStatus();
    });
  }
};

TEST(TableTicketTest, TakesOnlyWhatIsMissing) {
  Bank bank{.most = 10};
  {
    TableTicket ticket = bank.Ticket();
    EXPECT_TRUE(ticket.GrowTo(4).ok());
    EXPECT_EQ(bank.held, 4);
    EXPECT_TRUE(ticket.GrowTo(4).ok());
    EXPECT_TRUE(ticket.GrowTo(3).ok());
    EXPECT_EQ(bank.held, 4) << "never shrinks";
    EXPECT_EQ(ticket.GrowTo(11).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(bank.held, 4) << "a refusal takes nothing";
    EXPECT_EQ(ticket.bytes(), 4);
    EXPECT_TRUE(ticket.GrowTo(10).ok()) << "exactly all";
    EXPECT_EQ(bank.held, 10);
    EXPECT_EQ(ticket.bytes(), 10);
  }
  EXPECT_EQ(bank.held, 0);
}

TEST(TableTicketTest, MovesWithItsBytes) {
  Bank a, b;
  {
    TableTicket first = a.Ticket();
    EXPECT_TRUE(first.GrowTo(3).ok());
    TableTicket moved(std::move(first));
    EXPECT_EQ(moved.bytes(), 3);
    {
      TableTicket other = b.Ticket();
      EXPECT_TRUE(other.GrowTo(5).ok());
      other = std::move(moved);
      EXPECT_EQ(other.bytes(), 3);
      EXPECT_EQ(a.held, 3);
    }
    EXPECT_EQ(a.held, 0) << "given back by the ticket that it was moved to";
  }
  EXPECT_EQ(a.held, 0);
  EXPECT_EQ(b.held, 0);
  TableTicket none;
  EXPECT_TRUE(none.GrowTo(INT64_MAX).ok());
  EXPECT_FALSE(none.has_account());
}

// A table holds its bytes from before its form is made to its last copy, and a refused table none.
TEST(TableTicketTest, ATableHoldsItsBytes) {
  const std::vector<Rule> rules = {T5Rule{32, 128, true, std::vector<float>(64)}, AlibiRule{false, {1, 2}},
                                   PerOffsetRule{-3, std::vector<float>(20)}};
  for (const Rule& rule : rules) {
    Bank bank;
    {
      auto table = BiasTable::Create(2, rule, BiasTable::kMaxValues, bank.Ticket());
      ASSERT_TRUE(table.ok()) << table.status();
      EXPECT_EQ(bank.held, table->bytes());
      const auto values = static_cast<std::int64_t>(table->offset_form().values.size());
      EXPECT_GE(table->bytes(), kTableOverhead + RuleBytes(values));
      const BiasTable copy = *table;
      table = absl::UnknownError("the first is gone");
      EXPECT_EQ(bank.held, copy.bytes());
    }
    EXPECT_EQ(bank.held, 0);
    const std::int64_t bytes = BiasTable::Create(2, rule)->bytes();
    for (const std::int64_t most : {bytes, bytes - 1, bytes - 9, kTableOverhead, std::int64_t{1}}) {
      bank.most = most;
      EXPECT_EQ(BiasTable::Create(2, rule, BiasTable::kMaxValues, bank.Ticket()).ok(), most == bytes) << most;
      EXPECT_EQ(bank.held, 0) << most;
    }
    bank.most = INT64_MAX;
    EXPECT_FALSE(BiasTable::Create(2, rule, 1, bank.Ticket()).ok());
    EXPECT_FALSE(BiasTable::Create(0, rule, 1, bank.Ticket()).ok());
    EXPECT_EQ(bank.held, 0) << "after other refusals";
    {
      auto late = BiasTable::Create(2, rule);
      bank.most = bytes - 1;
      EXPECT_FALSE(late->CountIn(bank.Ticket()).ok());
      EXPECT_EQ(bank.held, 0);
      bank.most = bytes;
      EXPECT_TRUE(late->CountIn(bank.Ticket()).ok());
      EXPECT_TRUE(late->CountIn(bank.Ticket()).ok()) << "counts once";
      EXPECT_EQ(bank.held, bytes);
    }
    EXPECT_EQ(bank.held, 0);
  }
}

}  // namespace
}  // namespace attnd::bias
