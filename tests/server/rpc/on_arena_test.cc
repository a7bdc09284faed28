#include "server/rpc/on_arena.h"

#include <cstddef>

#include "attnd/v1/model.pb.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(OnArenaTest, TheMessageIsOnTheArenaAndStartsEmpty) {
  OnArena<v1::Table> table;
  EXPECT_NE(table->GetArena(), nullptr);
  EXPECT_EQ(table->ByteSizeLong(), 0U);
  table->set_heads(3);
  EXPECT_EQ((*table).heads(), 3);
  const OnArena<v1::Table>& same = table;
  EXPECT_EQ(same->heads(), 3);
  EXPECT_EQ((*same).heads(), 3);
}

TEST(OnArenaTest, TheBytesCoverWhatTheMessageUses) {
  OnArena<v1::Table> table;
  for (int i = 0; i < 20; ++i) {
    const std::size_t used = table->SpaceUsedLong();
    EXPECT_GE(table.allocated_bytes(), used - sizeof(v1::Table)) << i;
    for (int values = 1 << i; values > 0; --values) table->mutable_t5()->add_values(1);
  }
  EXPECT_GE(table.allocated_bytes(), std::size_t{4} << 20);
}

}  // namespace
}  // namespace attnd::server
