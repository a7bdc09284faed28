#include "server/rpc/call_gate.h"

#include <thread>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(CallGateTest, ClosedForGoodButThoseInsideStay) {
  CallGate gate;
  EXPECT_TRUE(gate.Enter());
  EXPECT_TRUE(gate.Enter());
  gate.Close();
  EXPECT_FALSE(gate.Enter());
  EXPECT_EQ(gate.AwaitEmpty(absl::InfinitePast()), 2);
  gate.Leave();
  EXPECT_EQ(gate.AwaitEmpty(absl::InfinitePast()), 1);
  EXPECT_FALSE(gate.Enter());
  std::thread last([&gate] { gate.Leave(); });
  EXPECT_EQ(gate.AwaitEmpty(absl::InfiniteFuture()), 0);
  last.join();
}

}  // namespace
}  // namespace attnd::server
