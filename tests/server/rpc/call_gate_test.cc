#include "server/rpc/call_gate.h"

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

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

TEST(CallGateTest, APassLeavesOnce) {
  CallGate gate;
  ASSERT_TRUE(gate.Enter());
  {
    Pass first(&gate);
    EXPECT_EQ(gate.inside(), 1);
    const Pass second = std::move(first);
    EXPECT_EQ(gate.inside(), 1);
  }
  EXPECT_EQ(gate.inside(), 0);
}

TEST(CallGateTest, WhoIsRefusedIsNotCounted) {
  CallGate gate;
  gate.Close();
  gate.Close();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(gate.Enter());
  EXPECT_EQ(gate.inside(), 0);
}

// Once Close has returned, nobody enters: what a stop counts then is all that there will be.
TEST(CallGateTest, NobodyEntersAfterClose) {
  for (int round = 0; round < 40; ++round) {
    CallGate gate;
    std::atomic<bool> closed{false};
    std::atomic<int> too_late{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) {
      callers.emplace_back([&] {
        while (true) {
          const bool was_closed = closed.load();
          if (!gate.Enter()) return;
          too_late += was_closed ? 1 : 0;
          gate.EnterMore();
          gate.Leave();
          gate.Leave();
        }
      });
    }
    gate.Close();
    closed = true;
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(too_late.load(), 0);
    EXPECT_EQ(gate.inside(), 0);
  }
}

}  // namespace
}  // namespace attnd::server
