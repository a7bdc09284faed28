// Memory registered with a server that answers late, refuses, dies or says what it was not asked: what the client takes
// for shared, and what it releases.
#include "client/src/region_keeper.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/shm/protocol.h"
#include "client/src/shared_memory.h"
#include "client/src/waking_thread.h"
#include "fake_local_server.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;
using Region = RegionKeeper::Region;
using Clock = RegionKeeper::Clock;

using test::Becomes;

class RegionKeeperTest : public testing::Test {
 protected:
  RegionKeeperTest() {
    // Each handle's mark is the region's size in pages, so that a reply that is taken for another's shows.
    server_.OnRequest([this](const Peer& peer, const shm::Request& request) { return Answer(peer, request); });
  }
  ~RegionKeeperTest() override { keeper_->Stop(); }

  bool Answer(const Peer& peer, const shm::Request& request) {
    const bool registers = request.operation == shm::Operation::kRegister;
    ++(registers ? registered_ : released_);
    if (!registers) last_released_ = request.handle[0];
    return FakeLocalServer::Reply(peer, registers ? code_.load() : 0, MarkOf(request.size));
  }
  static unsigned char MarkOf(std::size_t size) { return static_cast<unsigned char>(size / 4096); }

  static std::shared_ptr<Region> NewRegion(std::size_t pages) {
    return std::make_shared<Region>(MakeSharedMemory(4096 * pages), 4096 * pages);
  }
  // Whether Settle returns, or calls back within ten seconds.
  bool Settle(const RegionKeeper::Regions& regions, Clock::time_point deadline = Clock::time_point::max()) {
    const auto settled = std::make_shared<absl::Notification>();
    return keeper_->Settle(regions, deadline, [settled] { settled->Notify(); }) ||
           settled->WaitForNotificationWithTimeout(absl::Seconds(10));
  }
  // Registers and expects the handle that the server gave.
  void ExpectShared(const std::shared_ptr<Region>& region) {
    ASSERT_TRUE(Settle({region}));
    const std::optional<shm::Handle> handle = keeper_->HandleOf(*region);
    ASSERT_TRUE(handle.has_value());
    EXPECT_EQ((*handle)[0], MarkOf(region->size));
  }
  // Everything that was asked before has been answered after this.
  void Drain() {
    const std::shared_ptr<Region> last = NewRegion(200);
    ExpectShared(last);
  }

  const test::TempFolder folder_;
  std::atomic<int> registered_{0}, released_{0}, last_released_{0}, code_{0};
  FakeLocalServer server_{folder_.path() + "/s"};
  const std::shared_ptr<RegionKeeper> keeper_ = std::make_shared<RegionKeeper>(folder_.path() + "/s");
};

TEST_F(RegionKeeperTest, EachRegionHasItsHandleAndARefusedOneHasNone) {
  std::vector<std::shared_ptr<Region>> regions;
  for (std::size_t pages = 1; pages <= 5; ++pages) regions.push_back(NewRegion(pages));
  EXPECT_FALSE(keeper_->Offered());
  ASSERT_TRUE(Settle(regions));
  EXPECT_TRUE(keeper_->Offered());
  for (const auto& region : regions) EXPECT_EQ(keeper_->HandleOf(*region).value()[0], MarkOf(region->size));
  code_ = 8;
  const std::shared_ptr<Region> refused = NewRegion(6);
  ASSERT_TRUE(Settle({refused}));
  EXPECT_FALSE(keeper_->HandleOf(*refused).has_value());
  EXPECT_TRUE(keeper_->Offered());
  // It is not asked for again.
  EXPECT_TRUE(keeper_->Settle({refused}, Clock::time_point::max(), [] { ADD_FAILURE(); }));
  EXPECT_EQ(registered_, 6);
  EXPECT_EQ(server_.connections, 1);
}

// In each state: not asked for, asked for and not answered, shared, refused.
TEST_F(RegionKeeperTest, AFreedRegionIsReleasedWhereverItStands) {
  keeper_->Release(NewRegion(1));
  Drain();
  EXPECT_EQ(released_, 0) << "one that was never registered";

  const std::shared_ptr<Region> shared = NewRegion(2);
  ExpectShared(shared);
  keeper_->Release(shared);
  Drain();
  EXPECT_EQ(released_, 1);
  EXPECT_EQ(last_released_, 2);

  code_ = 8;
  const std::shared_ptr<Region> refused = NewRegion(3);
  ASSERT_TRUE(Settle({refused}));
  keeper_->Release(refused);
  code_ = 0;
  Drain();
  EXPECT_EQ(released_, 1) << "one that was refused";

  for (const int code : {0, 8}) {
    const std::shared_ptr<Region> asked = NewRegion(4);
    absl::Notification came, freed;
    server_.OnRequest([&](const Peer& peer, const shm::Request& request) {
      if (request.size == asked->size) {
        came.Notify();
        EXPECT_TRUE(test::Comes(freed));
        code_ = code;
      }
      const bool answered = Answer(peer, request);
      code_ = 0;
      return answered;
    });
    ASSERT_FALSE(keeper_->Settle({asked}, Clock::time_point::max(), [] {}));
    ASSERT_TRUE(test::Comes(came));
    keeper_->Release(asked);
    freed.Notify();
    Drain();
    Drain();  // the release was queued after the first one's registration
    EXPECT_EQ(released_, 2) << "while it was registered; code " << code;
    EXPECT_EQ(last_released_, 4);
  }
}

TEST_F(RegionKeeperTest, ALostConnectionForgetsHandlesAndRegionsAreRegisteredAgain) {
  const std::shared_ptr<Region> first = NewRegion(1), second = NewRegion(2);
  ASSERT_TRUE(Settle({first, second}));
  server_.HangUp();
  // The client may not have noticed: Check looks.
  keeper_->Check();
  EXPECT_FALSE(keeper_->HandleOf(*first).has_value());
  EXPECT_FALSE(keeper_->Offered());
  ExpectShared(second);
  ExpectShared(first);
  EXPECT_EQ(registered_, 4);
  EXPECT_EQ(server_.connections, 2);
}

// As does Settle, whether the keeper's thread was faster or not.
TEST_F(RegionKeeperTest, SettleAsksAgainAfterALostConnection) {
  const std::shared_ptr<Region> region = NewRegion(1);
  for (int i = 0; i < 50; ++i) {
    ExpectShared(region);
    server_.HangUp();
    absl::Notification settled;
    EXPECT_FALSE(keeper_->Settle({region}, Clock::time_point::max(), [&] { settled.Notify(); })) << i;
    ASSERT_TRUE(settled.WaitForNotificationWithTimeout(absl::Seconds(10)));
    EXPECT_EQ(server_.connections, i + 2);
  }
}

TEST_F(RegionKeeperTest, ForgottenHandlesAreNotHandedOut) {
  const std::shared_ptr<Region> region = NewRegion(1);
  for (int i = 0; i < 50; ++i) {
    ExpectShared(region);
    keeper_->Forget();
    EXPECT_FALSE(keeper_->HandleOf(*region).has_value()) << i;
    EXPECT_FALSE(keeper_->Offered()) << i;
  }
}

// What the lost connection was asked is not answered by the next one.
TEST_F(RegionKeeperTest, AConnectionLostInARegistrationLeavesNothingToTheNext) {
  const std::shared_ptr<Region> first = NewRegion(1), second = NewRegion(2), third = NewRegion(3);
  absl::Notification came;
  server_.OnRequest([&](const Peer& peer, const shm::Request&) {
    shutdown(peer->get(), SHUT_RDWR);
    if (!came.HasBeenNotified()) came.Notify();
    return true;
  });
  ASSERT_TRUE(Settle({first, second}));
  ASSERT_TRUE(test::Comes(came));
  EXPECT_FALSE(keeper_->HandleOf(*first).has_value());
  EXPECT_FALSE(keeper_->HandleOf(*second).has_value());
  server_.OnRequest([this](const Peer& peer, const shm::Request& request) { return Answer(peer, request); });
  // It rests for a second.
  EXPECT_TRUE(Becomes([&] {
    EXPECT_TRUE(Settle({third, second, first}));
    return keeper_->HandleOf(*first).has_value();
  }));
  for (const auto& region : {first, second, third}) {
    const std::optional<shm::Handle> handle = keeper_->HandleOf(*region);
    ASSERT_TRUE(handle.has_value());
    EXPECT_EQ((*handle)[0], MarkOf(region->size));
  }
  Drain();
  EXPECT_EQ(released_, 0);
}

// A server that does not answer costs its callers a second once, or their own time if that is shorter.
TEST_F(RegionKeeperTest, ASilentServerHoldsNobodyUpForLongerThanHisTime) {
  server_.OnRequest([](const Peer&, const shm::Request&) { return true; });
  const std::shared_ptr<Region> region = NewRegion(1);
  const Clock::time_point start = Clock::now();
  EXPECT_TRUE(Settle({region}, start + std::chrono::milliseconds(30)));
  EXPECT_GE(Clock::now(), start + std::chrono::milliseconds(30));
  EXPECT_LT(Clock::now(), start + RegionKeeper::kPatience);
  EXPECT_FALSE(keeper_->HandleOf(*region).has_value());
  EXPECT_TRUE(Settle({region}));
  EXPECT_GE(Clock::now(), start + RegionKeeper::kPatience);
  // Then it is known, and nobody waits; the client may be a moment behind the caller's own time.
  EXPECT_TRUE(Becomes([&] { return keeper_->Settle({region}, Clock::now(), [] {}); }, absl::Seconds(5)));
  EXPECT_FALSE(keeper_->HandleOf(*region).has_value());
  EXPECT_TRUE(Becomes([&] { return server_.standing == 0; }));
  EXPECT_EQ(server_.connections, 1);
}

TEST_F(RegionKeeperTest, WhatIsNoReplyEndsTheConnectionAndSharesNothing) {
  const std::function<void(const Peer&)> kReplies[] = {
      [](const Peer& peer) {
        shm::Reply reply{};
        reply.magic = shm::kMagic + 1;
        reply.version = shm::kVersion;
        send(peer->get(), &reply, sizeof(reply), MSG_NOSIGNAL);
      },
      [](const Peer& peer) { FakeLocalServer::Send(peer, "short"); },
  };
  for (const auto& reply : kReplies) {
    const auto keeper = std::make_shared<RegionKeeper>(folder_.path() + "/s");
    const std::shared_ptr<Region> region = NewRegion(1);
    server_.OnRequest([&](const Peer& peer, const shm::Request&) {
      reply(peer);
      return true;
    });
    absl::Notification settled;
    ASSERT_FALSE(keeper->Settle({region}, Clock::time_point::max(), [&] { settled.Notify(); }));
    ASSERT_TRUE(settled.WaitForNotificationWithTimeout(absl::Seconds(10)));
    EXPECT_FALSE(keeper->HandleOf(*region).has_value());
    EXPECT_FALSE(keeper->Offered());
    EXPECT_TRUE(Becomes([&] { return server_.standing == 0; }));
    keeper->Stop();
  }
}

TEST_F(RegionKeeperTest, AReplyThatNobodyAskedForEndsTheConnection) {
  const std::shared_ptr<Region> region = NewRegion(1);
  server_.OnRequest([this](const Peer& peer, const shm::Request& request) {
    return Answer(peer, request) && FakeLocalServer::Reply(peer, 0, 99);
  });
  ASSERT_TRUE(Settle({region}));
  EXPECT_TRUE(Becomes([&] { return server_.standing == 0; }));
  EXPECT_FALSE(keeper_->HandleOf(*region).has_value());
}

TEST_F(RegionKeeperTest, StopEndsWaitersAndTheConnection) {
  server_.OnRequest([](const Peer&, const shm::Request&) { return true; });
  const std::shared_ptr<Region> region = NewRegion(1);
  absl::Notification settled;
  ASSERT_FALSE(keeper_->Settle({region}, Clock::time_point::max(), [&] { settled.Notify(); }));
  ASSERT_TRUE(Becomes([&] { return server_.standing == 1; }));
  keeper_->Stop();
  EXPECT_TRUE(settled.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_TRUE(Becomes([&] { return server_.standing == 0; }));
  EXPECT_FALSE(keeper_->HandleOf(*region).has_value());
  EXPECT_TRUE(keeper_->Settle({region}, Clock::time_point::max(), [] { ADD_FAILURE(); }));
}

// A process without descriptors left has no thread to wait for.
TEST(WakingThreadTest, WithoutDescriptorsThereIsNone) {
  WakingThread thread;
  rlimit before{}, none{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const bool started = thread.Start([] {});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(started);
  absl::Notification ran;
  EXPECT_TRUE(thread.Start([&] { ran.Notify(); }));
  EXPECT_TRUE(test::Comes(ran));
}

// --- ranges

TEST(SharedMemoryFind, FindsWhatIsWhollyInARegionAndNotAByteMore) {
  const test::TempFolder folder;
  FakeLocalServer server(folder.path() + "/s");
  server.shares_memory = true;
  const auto memory = std::make_shared<SharedMemory>(folder.path() + "/s");
  constexpr std::size_t kSize = 8192;
  const std::shared_ptr<void> region = *memory->Allocate(kSize), other = *memory->Allocate(kSize);
  const auto* const begin = static_cast<const char*>(region.get());
  const SharedMemory::Range whole{begin, kSize}, others{other.get(), kSize};
  EXPECT_FALSE(memory->Find(whole).has_value()) << "not known yet";
  EXPECT_TRUE(memory->Owns(whole));
  memory->SettleNow({whole, others}, absl::InfiniteFuture());
  EXPECT_NE(memory->Find(whole)->region, memory->Find(others)->region);
  struct Case {
    std::size_t offset, size;
    bool found;
  };
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  for (const Case& c :
       {Case{0, 0, true}, Case{0, 1, true}, Case{0, kSize, true}, Case{0, kSize + 1, false}, Case{1, kSize - 1, true},
        Case{1, kSize, false}, Case{kSize - 1, 1, true}, Case{kSize - 1, 2, false}, Case{kSize / 2, kMost, false},
        Case{kSize / 2, kMost - kSize, false}}) {
    const SharedMemory::Range range{begin + c.offset, c.size};
    const std::optional<SharedPlace> place = memory->Find(range);
    EXPECT_EQ(place.has_value(), c.found) << c.offset << " " << c.size;
    EXPECT_EQ(memory->Owns(range), c.found) << c.offset << " " << c.size;
    if (place.has_value()) {
      EXPECT_EQ(place->offset, c.offset);
      EXPECT_EQ(place->region, memory->Find(whole)->region);
    }
  }
  const std::vector<char> elsewhere(16);
  EXPECT_FALSE(memory->Find({elsewhere.data(), 16}).has_value());
  EXPECT_FALSE(memory->Owns({elsewhere.data(), 16}));
}

TEST(SharedMemoryFind, AFreedRegionIsReleasedAndNotFound) {
  const test::TempFolder folder;
  FakeLocalServer server(folder.path() + "/s");
  server.shares_memory = true;
  const auto memory = std::make_shared<SharedMemory>(folder.path() + "/s");
  std::shared_ptr<void> region = *memory->Allocate(4096);
  const SharedMemory::Range range{region.get(), 4096};
  memory->SettleNow({range}, absl::InfiniteFuture());
  EXPECT_TRUE(memory->Find(range).has_value());
  region.reset();
  EXPECT_FALSE(memory->Owns(range));
  EXPECT_TRUE(Becomes([&] { return server.released == 1; }));
}

}  // namespace
}  // namespace attnd::client
