#include "server/rpc/call_gate.h"

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(CallGateTest, ClosedForGoodButThoseInsideStay) {
  CallGate gate;
  EXPECT_TRUE(gate.Enter());
  EXPECT_TRUE(gate.Enter());
  gate.Close();
  EXPECT_FALSE(gate.Enter());
  EXPECT_EQ(gate.inside(), 2);
  gate.Leave();
  EXPECT_EQ(gate.inside(), 1);
  EXPECT_FALSE(gate.Enter());
  gate.EnterMore();
  EXPECT_EQ(gate.inside(), 2);
  gate.Leave();
  gate.Leave();
  EXPECT_EQ(gate.inside(), 0);
}

}  // namespace
}  // namespace attnd::server
