// The socket beside the gRPC socket, with the client's own code and with callers who break its protocol.
#include "server/shm/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/src/shared_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "raw_caller.h"
#include "raw_region.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::server {
namespace {

using test::Becomes;
using test::OpenDescriptors;
using test::RawCaller;
using test::RegisterRequest;
using test::SealedMemfd;

constexpr std::size_t kSize = 1 << 16;

v1::SharedTensor Place(const shm::Handle& handle) {
  v1::SharedTensor tensor;
  tensor.set_region(handle.data(), handle.size());
  return tensor;
}

// The place of `size` bytes, once the server has their region.
std::optional<client::SharedPlace> Registered(client::SharedMemory& client, const void* data, std::size_t size) {
  client.SettleNow({{data, size}}, absl::InfiniteFuture());
  return client.Find({data, size});
}

// Calls that answer a datagram with itself, and take offence at "bad".
class EchoCalls final : public LocalCalls {
 public:
  std::shared_ptr<LocalConnection> Connect(const Peer& peer, std::shared_ptr<DatagramSink> sink) override {
    absl::MutexLock lock(&mutex_);
    peers_.push_back(peer);
    return std::make_shared<Echo>(*this, std::move(sink));
  }

  std::vector<Peer> peers() const {
    absl::MutexLock lock(&mutex_);
    return peers_;
  }
  int closed() const { return closed_.load(); }
  // What was taken, in order.
  std::vector<std::string> taken() const {
    absl::MutexLock lock(&mutex_);
    return taken_;
  }
  // Lets the listener's thread wait when it takes "wait", until it may go on.
  absl::Notification waits;
  absl::Notification go_on;
  // The same when a connection's calls are to end, if set.
  std::atomic<bool> holds_close{false};
  absl::Notification closes;
  absl::Notification go_on_closing;

 private:
  class Echo final : public LocalConnection {
   public:
    Echo(EchoCalls& calls, std::shared_ptr<DatagramSink> sink) : calls_(calls), sink_(std::move(sink)) {}
    absl::Status Take(absl::string_view datagram) override {
      {
        absl::MutexLock lock(&calls_.mutex_);
        calls_.taken_.emplace_back(datagram);
      }
      if (datagram == "bad") return absl::InvalidArgumentError("a bad word");
      if (datagram == "wait") {
        calls_.waits.Notify();
        EXPECT_TRUE(calls_.go_on.WaitForNotificationWithTimeout(absl::Seconds(20)));
      }
      if (datagram == "pause") sink_->Pause();
      sink_->Send(std::string(datagram), nullptr);
      return absl::OkStatus();
    }
    void Close() override {
      if (calls_.holds_close.exchange(false)) {
        calls_.closes.Notify();
        EXPECT_TRUE(calls_.go_on_closing.WaitForNotificationWithTimeout(absl::Seconds(20)));
      }
      ++calls_.closed_;
    }

   private:
    EchoCalls& calls_;
    const std::shared_ptr<DatagramSink> sink_;
  };

  mutable absl::Mutex mutex_;
  std::vector<Peer> peers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> taken_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> closed_{0};
};

class SharedMemoryListenerTest : public testing::Test {
 protected:
  SharedMemoryListenerTest() { Start(); }
  void Start() {
    listener_.reset();
    auto listener = SharedMemoryListener::Create(path(), options_, memory_, calls_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }
  std::string path() const { return folder_.path() + "/s.shm"; }

  std::optional<shm::Handle> Register(RawCaller& caller) {
    const shm::UniqueFd fd = SealedMemfd(kSize);
    const shm::Request request = RegisterRequest(kSize);
    caller.Send(&request, sizeof(request), {fd.get()});
    const std::optional<shm::Reply> reply = HearReply(caller);
    if (!reply.has_value() || reply->code != 0) return std::nullopt;
    return reply->handle;
  }

  // Returns once the server has closed the caller's connection, which it does after dropping the regions.
  static void AwaitClosed(RawCaller& caller) { EXPECT_FALSE(HearReply(caller).has_value()); }

  // The next datagram, or the end, once it is there; nullopt if nothing comes.
  static std::optional<std::string> Hear(RawCaller& caller) {
    return Hears(caller) ? caller.ReceiveBytes() : std::nullopt;
  }
  static std::optional<shm::Reply> HearReply(RawCaller& caller) {
    return Hears(caller) ? caller.Receive() : std::nullopt;
  }
  static bool Hears(RawCaller& caller) {
    const bool hears = Becomes([&] { return caller.HearsNow(); });
    EXPECT_TRUE(hears) << "nothing comes from the server";
    return hears;
  }

  const test::TempFolder folder_;
  const std::shared_ptr<SharedMemory> memory_ = std::make_shared<SharedMemory>(SharedMemoryLimits{});
  ListenerOptions options_{.mode = 0600, .patience = std::chrono::milliseconds(300)};
  EchoCalls calls_;
  std::unique_ptr<SharedMemoryListener> listener_;
};

TEST_F(SharedMemoryListenerTest, TheSocketHasItsPermissions) {
  struct stat file;
  ASSERT_EQ(stat(path().c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600U);
  listener_.reset();
  EXPECT_NE(stat(path().c_str(), &file), 0);
}

TEST_F(SharedMemoryListenerTest, TheClientsMemoryIsTheServers) {
  const auto client = std::make_shared<client::SharedMemory>(path());
  auto memory = client->Allocate(kSize);
  ASSERT_TRUE(memory.ok());
  auto* const bytes = static_cast<char*>(memory->get());
  bytes[77] = 42;
  const auto place = Registered(*client, bytes + 77, kSize - 77);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->offset, 77U);
  v1::SharedTensor tensor = Place(place->region);
  tensor.set_offset(place->offset);
  const auto seen = memory_->Resolve("q_shared", tensor, kSize - 77);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_EQ(std::to_integer<int>(seen->data[0]), 42);
  EXPECT_FALSE(Registered(*client, bytes + 77, kSize).has_value());
  EXPECT_FALSE(Registered(*client, bytes - 1, 1).has_value());
  const int elsewhere = 0;
  EXPECT_FALSE(Registered(*client, &elsewhere, sizeof(elsewhere)).has_value());
}

TEST_F(SharedMemoryListenerTest, FreedMemoryIsForgottenByTheServer) {
  const auto client = std::make_shared<client::SharedMemory>(path());
  auto memory = client->Allocate(kSize);
  ASSERT_TRUE(memory.ok() && Registered(*client, memory->get(), 1).has_value());
  EXPECT_EQ(memory_->mapped_bytes(), static_cast<std::int64_t>(kSize));
  memory->reset();
  EXPECT_TRUE(Becomes([&] { return memory_->mapped_bytes() == 0; }));
}

TEST_F(SharedMemoryListenerTest, TheClientRegistersAnewWithANewServer) {
  const auto client = std::make_shared<client::SharedMemory>(path());
  auto memory = client->Allocate(kSize);
  ASSERT_TRUE(memory.ok());
  const auto before = Registered(*client, memory->get(), kSize);
  listener_.reset();
  EXPECT_TRUE(Becomes([&] { return memory_->mapped_bytes() == 0; }));
  Start();
  const auto after = Registered(*client, memory->get(), kSize);
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_NE(before->region, after->region);
  EXPECT_TRUE(memory_->Resolve("q_shared", Place(after->region), kSize).ok());
}

TEST_F(SharedMemoryListenerTest, WithoutAServerMemoryIsJustMemory) {
  listener_.reset();
  const auto client = std::make_shared<client::SharedMemory>(path());
  auto memory = client->Allocate(kSize);
  ASSERT_TRUE(memory.ok());
  client->SettleNow({}, absl::InfiniteFuture());
  EXPECT_FALSE(client->Offered());
  EXPECT_FALSE(Registered(*client, memory->get(), 1).has_value());
}

TEST_F(SharedMemoryListenerTest, RegionsGoWithTheirConnection) {
  RawCaller stays(path());
  const std::optional<shm::Handle> kept = Register(stays);
  std::optional<shm::Handle> dropped;
  {
    RawCaller goes(path());
    dropped = Register(goes);
    ASSERT_TRUE(kept.has_value() && dropped.has_value());
    // Nobody but the owner can release it.
    shm::Request release = RegisterRequest(0);
    release.operation = shm::Operation::kRelease;
    release.handle = *dropped;
    ASSERT_TRUE(stays.Send(&release, sizeof(release)));
    EXPECT_EQ(HearReply(stays)->code, static_cast<int>(absl::StatusCode::kNotFound));
    EXPECT_TRUE(memory_->Resolve("q_shared", Place(*dropped), kSize).ok());
    shutdown(goes.fd(), SHUT_WR);
    AwaitClosed(goes);
  }
  EXPECT_FALSE(memory_->Resolve("q_shared", Place(*dropped), kSize).ok());
  EXPECT_TRUE(memory_->Resolve("q_shared", Place(*kept), kSize).ok());
}

TEST_F(SharedMemoryListenerTest, BrokenMessagesEndTheConnectionAndNothingElse) {
  RawCaller good(path());
  const std::optional<shm::Handle> handle = Register(good);
  ASSERT_TRUE(handle.has_value());
  const std::size_t descriptors = OpenDescriptors();
  const shm::Request request = RegisterRequest(kSize);
  std::vector<char> longer(sizeof(request) + 1);
  std::memcpy(longer.data(), &request, sizeof(request));
  shm::Request other_magic = request;
  other_magic.magic ^= 1;
  const shm::UniqueFd fd = SealedMemfd(kSize);
  const struct {
    const char* what;
    const void* bytes;
    std::size_t size;
    std::vector<int> fds;
  } cases[] = {
      {"half a message", &request, sizeof(request) / 2, {fd.get()}},
      {"a message too long", longer.data(), longer.size(), {fd.get()}},
      {"another protocol", &other_magic, sizeof(other_magic), {fd.get()}},
      {"two descriptors", &request, sizeof(request), {fd.get(), fd.get()}},
      {"many descriptors", &request, sizeof(request), std::vector<int>(200, fd.get())},
  };
  for (const auto& bad : cases) {
    RawCaller caller(path());
    ASSERT_TRUE(caller.connected());
    ASSERT_TRUE(caller.Send(bad.bytes, bad.size, bad.fds)) << bad.what;
    AwaitClosed(caller);
  }
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors + 1; })) << "`fd` and nothing else";
  EXPECT_EQ(memory_->mapped_bytes(), static_cast<std::int64_t>(kSize));
  EXPECT_TRUE(Register(good).has_value());
}

TEST_F(SharedMemoryListenerTest, RefusalsAreAnswered) {
  RawCaller caller(path());
  const auto code = [&](const shm::Request& request, const std::vector<int>& fds) {
    EXPECT_TRUE(caller.Send(&request, sizeof(request), fds));
    const std::optional<shm::Reply> reply = HearReply(caller);
    EXPECT_TRUE(reply.has_value());
    EXPECT_NE(reply->message[0], '\0');
    return static_cast<absl::StatusCode>(reply->code);
  };
  const shm::UniqueFd fd = SealedMemfd(kSize);
  shm::Request version = RegisterRequest(kSize);
  version.version = 2;
  EXPECT_EQ(code(version, {fd.get()}), absl::StatusCode::kUnimplemented);
  shm::Request operation = RegisterRequest(kSize);
  operation.operation = static_cast<shm::Operation>(9);
  EXPECT_EQ(code(operation, {fd.get()}), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(code(RegisterRequest(kSize), {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(RegisterRequest(kSize + 1), {fd.get()}), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Register(caller).has_value());
}

TEST_F(SharedMemoryListenerTest, ACallerThatDoesNotReadItsAnswersIsClosedInTime) {
  RawCaller caller(path());
  RawCaller other(path());
  const shm::Request request = RegisterRequest(kSize);
  const absl::Time begin = absl::Now();
  // Answers that nobody reads fill the socket, and the server reads no more until it closes the connection.
  ASSERT_TRUE(Becomes([&] {
    while (caller.Send(&request, sizeof(request), {}, /*wait=*/false)) {
    }
    return calls_.closed() == 1;
  }));
  EXPECT_GE(absl::Now() - begin, absl::FromChrono(options_.patience)) << "it was given no time to read";
  while (HearReply(caller).has_value()) {
  }
  EXPECT_TRUE(Register(other).has_value());
  EXPECT_EQ(calls_.closed(), 1);
}

TEST_F(SharedMemoryListenerTest, ACallerThatReadsLateGetsEveryAnswerInOrder) {
  options_.patience = std::chrono::minutes(1);
  Start();
  RawCaller caller(path());
  const std::string filler(10'000, 'x');
  int sent = 0;
  // Until the server reads no more, as its answers find no room.
  while (true) {
    if (caller.Send(std::to_string(sent) + filler, {}, /*wait=*/false)) {
      ++sent;
    } else if (!caller.HasRoom(std::chrono::milliseconds(200))) {
      break;
    }
  }
  RawCaller other(path());
  EXPECT_TRUE(Register(other).has_value()) << "another caller is held up";
  for (int i = 0; i < sent; ++i) ASSERT_EQ(Hear(caller), std::to_string(i) + filler);
  ASSERT_TRUE(caller.Send("again"));
  EXPECT_EQ(Hear(caller), "again");
}

TEST_F(SharedMemoryListenerTest, DatagramsThatAreNoFixedMessagesGoToTheCalls) {
  RawCaller caller(path());
  for (const std::string& datagram : {std::string("a"), std::string("attndsh"), std::string(kMaxDatagramBytes, 'x')}) {
    ASSERT_TRUE(caller.Send(datagram));
    EXPECT_EQ(Hear(caller), datagram);
  }
  EXPECT_TRUE(Register(caller).has_value());
  const std::vector<Peer> peers = calls_.peers();
  ASSERT_EQ(peers.size(), 1U);
  EXPECT_EQ(peers[0].uid, getuid());
  EXPECT_EQ(peers[0].pid, getpid());
}

TEST_F(SharedMemoryListenerTest, WhatTheCallsRefuseEndsTheConnection) {
  const std::size_t descriptors = OpenDescriptors();
  const shm::UniqueFd fd = SealedMemfd(kSize);
  const struct {
    const char* what;
    std::string bytes;
    std::vector<int> fds;
  } cases[] = {
      {"a bad word", "bad", {}},
      {"nothing", "", {}},
      {"nothing with a descriptor", "", {fd.get()}},
      {"too much", std::string(kMaxDatagramBytes + 1, 'x'), {}},
      {"a descriptor", "word", {fd.get()}},
      {"descriptors", "word", std::vector<int>(250, fd.get())},
  };
  int closed = 0;
  for (const auto& bad : cases) {
    RawCaller caller(path());
    ASSERT_TRUE(caller.Send("good"));
    ASSERT_EQ(Hear(caller), "good");
    ASSERT_TRUE(caller.Send(bad.bytes, bad.fds)) << bad.what;
    EXPECT_EQ(Hear(caller), std::nullopt) << bad.what;
    EXPECT_EQ(calls_.closed(), ++closed) << bad.what;
  }
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors + 1; })) << "`fd` and nothing else";
}

TEST_F(SharedMemoryListenerTest, OneThatFloodsLeavesTheOthersTheirTurn) {
  options_.patience = std::chrono::minutes(1);
  Start();
  RawCaller flood(path());
  RawCaller other(path());
  // Both have something to say before the server's thread looks again.
  ASSERT_TRUE(flood.Send("wait"));
  ASSERT_TRUE(calls_.waits.WaitForNotificationWithTimeout(absl::Seconds(20)));
  int sent = 0;
  while (flood.Send("y", {}, /*wait=*/false)) ++sent;
  ASSERT_GT(sent, 50);
  ASSERT_TRUE(other.Send("x"));
  calls_.go_on.Notify();
  ASSERT_TRUE(Hear(other).has_value());
  const std::vector<std::string> taken = calls_.taken();
  EXPECT_LE(std::find(taken.begin(), taken.end(), "x") - taken.begin(), 3) << "it had to wait for more than a turn";
}

// A TCP socket with unsent data that lingers: its close takes as long as a FUSE file's may.
TEST_F(SharedMemoryListenerTest, ADescriptorThatIsSlowToCloseHoldsUpNobody) {
  constexpr int kSeconds = 3;
  const shm::UniqueFd listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listening.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listening.get(), 1), 0);
  ASSERT_EQ(getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  shm::UniqueFd slow(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect(slow.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  const linger lingers{1, kSeconds};
  ASSERT_EQ(setsockopt(slow.get(), SOL_SOCKET, SO_LINGER, &lingers, sizeof(lingers)), 0);
  const std::string filler(1 << 16, 'x');
  while (send(slow.get(), filler.data(), filler.size(), MSG_DONTWAIT) > 0) {
  }
  RawCaller other(path());
  RawCaller refused(path());
  RawCaller held(path());
  ASSERT_TRUE(other.Send("x") && Hear(other).has_value());
  // While the server's thread waits: the last to close the descriptor is to be the server.
  ASSERT_TRUE(held.Send("wait"));
  ASSERT_TRUE(calls_.waits.WaitForNotificationWithTimeout(absl::Seconds(20)));
  const shm::Request request = RegisterRequest(kSize);
  ASSERT_TRUE(refused.Send(&request, sizeof(request), {slow.get()}));
  slow = shm::UniqueFd();
  calls_.go_on.Notify();
  const absl::Time begin = absl::Now();
  EXPECT_EQ(HearReply(refused)->code, static_cast<int>(absl::StatusCode::kInvalidArgument));
  ASSERT_TRUE(other.Send("x"));
  EXPECT_TRUE(Hear(other).has_value());
  EXPECT_TRUE(Register(refused).has_value());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(kSeconds - 1));

  // Others wait behind it: with too many of them there are no new connections until it is closed.
  const shm::UniqueFd unsealed(memfd_create("test", MFD_CLOEXEC));
  for (std::size_t i = 0; i < kMaxClosing; ++i) {
    ASSERT_TRUE(refused.Send(&request, sizeof(request), {unsealed.get()}));
    ASSERT_TRUE(HearReply(refused).has_value() || i + 1 == kMaxClosing);
  }
  RawCaller next(path());
  ASSERT_TRUE(next.Send("x"));
  // In each turn of these it would have its own.
  for (int turn = 0; turn < 3; ++turn) {
    ASSERT_TRUE(other.Send("x"));
    EXPECT_TRUE(Hear(other).has_value());
  }
  EXPECT_FALSE(next.HearsNow());
  EXPECT_TRUE(Hear(next).has_value());
  EXPECT_GE(absl::Now() - begin, absl::Seconds(kSeconds) / 2);
}

// The server may write to its memory until its calls have ended and its regions are dropped.
TEST_F(SharedMemoryListenerTest, ACallerSeesTheEndWhenNothingOfItIsUsedAnyMore) {
  RawCaller caller(path());
  const std::optional<shm::Handle> region = Register(caller);
  ASSERT_TRUE(region.has_value());
  calls_.holds_close = true;
  ASSERT_TRUE(caller.Send("bad"));
  ASSERT_TRUE(calls_.closes.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_FALSE(caller.HearsNow()) << "its calls have not ended";
  EXPECT_EQ(memory_->mapped_bytes(), static_cast<std::int64_t>(kSize)) << "its calls have not ended";
  calls_.go_on_closing.Notify();
  AwaitClosed(caller);
  EXPECT_FALSE(memory_->Resolve("q_shared", Place(*region), 1).ok());
  EXPECT_EQ(calls_.closed(), 1);
}

// Whatever it is that the server waits for.
TEST_F(SharedMemoryListenerTest, ACallerThatGoesAwayIsEndedInEveryState) {
  options_.patience = std::chrono::minutes(1);
  Start();
  int closed = calls_.closed();
  for (const bool paused : {false, true}) {
    auto caller = std::make_unique<RawCaller>(path());
    ASSERT_TRUE(Register(*caller).has_value());
    if (paused) {
      ASSERT_TRUE(caller->Send("pause"));
      EXPECT_EQ(Hear(*caller), "pause");
    } else {
      // Until answers are kept.
      for (int i = 0; i < 100'000; ++i) {
        if (!caller->Send(std::string(10'000, 'x'), {}, /*wait=*/false) &&
            !caller->HasRoom(std::chrono::milliseconds(200))) {
          break;
        }
      }
    }
    caller.reset();
    ++closed;
    ASSERT_TRUE(Becomes([&] { return calls_.closed() == closed; })) << (paused ? "paused" : "full");
    EXPECT_TRUE(Becomes([&] { return memory_->mapped_bytes() == 0; })) << (paused ? "paused" : "full");
  }
}

TEST_F(SharedMemoryListenerTest, WithoutADescriptorForAConnectionItTriesAgain) {
  RawCaller other(path());
  ASSERT_TRUE(other.Send("wait"));
  ASSERT_TRUE(calls_.waits.WaitForNotificationWithTimeout(absl::Seconds(20)));
  RawCaller caller(path());
  ASSERT_TRUE(caller.Send("x"));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 3;  // those of the standard streams
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  calls_.go_on.Notify();
  EXPECT_EQ(Hear(other), "wait");
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_TRUE(other.Send("y"));
    EXPECT_EQ(Hear(other), "y") << "those that are there go on";
  }
  EXPECT_FALSE(caller.HearsNow());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(Hear(caller), "x");
}

TEST_F(SharedMemoryListenerTest, TakesNoConnectionAfterItHasStoppedAccepting) {
  RawCaller caller(path());
  ASSERT_TRUE(caller.Send("x") && Hear(caller).has_value());
  listener_->StopAccepting();
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_FALSE(RawCaller(path()).connected());
  ASSERT_TRUE(caller.Send("y"));
  EXPECT_EQ(Hear(caller), "y");
  EXPECT_TRUE(Register(caller).has_value());
}

TEST_F(SharedMemoryListenerTest, WhatHasArrivedIsAnsweredBeforeTheEnd) {
  RawCaller held(path());
  RawCaller caller(path());
  ASSERT_TRUE(held.Send("wait"));
  ASSERT_TRUE(calls_.waits.WaitForNotificationWithTimeout(absl::Seconds(20)));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(caller.Send(std::to_string(i)));
  std::thread end([&] { listener_.reset(); });
  EXPECT_TRUE(Becomes([&] { return !std::filesystem::exists(path()); }));
  absl::SleepFor(absl::Milliseconds(20));  // until the thread is told, most likely
  calls_.go_on.Notify();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Hear(caller), std::to_string(i));
  EXPECT_EQ(Hear(caller), std::nullopt);
  end.join();
  EXPECT_EQ(calls_.closed(), 2);
}

TEST_F(SharedMemoryListenerTest, BeyondTheMostConnectionsOneIsClosed) {
  std::vector<std::unique_ptr<RawCaller>> callers;
  for (std::size_t i = 0; i < SharedMemoryListener::kMaxConnections; ++i) {
    callers.push_back(std::make_unique<RawCaller>(path()));
    ASSERT_TRUE(callers.back()->connected());
  }
  ASSERT_TRUE(Register(*callers.back()).has_value());
  RawCaller surplus(path());
  AwaitClosed(surplus);
  shutdown(callers.front()->fd(), SHUT_WR);
  AwaitClosed(*callers.front());
  RawCaller next(path());
  EXPECT_TRUE(Register(next).has_value());
}

}  // namespace
}  // namespace attnd::server
