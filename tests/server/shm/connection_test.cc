// What a connection says, without its socket: the fixed messages, and the datagrams of calls beside them.
#include "server/shm/connection.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::server {
namespace {

using test::Becomes;

constexpr std::size_t kSize = 1 << 16;

class Sent final : public DatagramSink {
 public:
  void Pause() override {}
  void Resume() override {}
  void Send(std::string datagram, std::shared_ptr<const void>) override { datagrams.push_back(std::move(datagram)); }
  std::vector<std::string> datagrams;
};

class Calls final : public LocalConnection {
 public:
  absl::Status Take(absl::string_view datagram) override {
    taken.emplace_back(datagram);
    return answer;
  }
  void Close() override { ++closed; }

  std::vector<std::string> taken;
  absl::Status answer;
  int closed = 0;
};

shm::UniqueFd SealedMemory() {
  shm::UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (ftruncate(fd.get(), kSize) != 0 || fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) return {};
  return fd;
}

std::vector<shm::UniqueFd> One(shm::UniqueFd fd) {
  std::vector<shm::UniqueFd> descriptors;
  descriptors.push_back(std::move(fd));
  return descriptors;
}

std::string Fixed(shm::Operation operation, const shm::Handle& handle = {}) {
  shm::Request request{};
  request.magic = shm::kMagic;
  request.version = shm::kVersion;
  request.operation = operation;
  request.size = kSize;
  request.handle = handle;
  return {reinterpret_cast<const char*>(&request), sizeof(request)};
}

// What takes long to go.
class Slow {
 public:
  explicit Slow(std::shared_ptr<absl::Notification> go_on) : go_on_(std::move(go_on)) {}
  ~Slow() { EXPECT_TRUE(go_on_->WaitForNotificationWithTimeout(absl::Seconds(20))); }

 private:
  const std::shared_ptr<absl::Notification> go_on_;
};

class ConnectionTest : public testing::Test {
 protected:
  ConnectionTest() { Connect(&memory_); }
  void Connect(SharedMemory* memory) {
    connection_ = std::make_unique<Connection>(++owner_, "user", memory, closer_, unmapper_, sink_, calls_);
  }

  shm::Reply TakeReply() {
    shm::Reply reply{};
    EXPECT_EQ(sink_->datagrams.size(), 1U);
    if (sink_->datagrams.empty()) return reply;
    EXPECT_EQ(sink_->datagrams[0].size(), sizeof(reply));
    std::memcpy(&reply, sink_->datagrams[0].data(), sizeof(reply));
    sink_->datagrams.clear();
    EXPECT_EQ(reply.magic, shm::kMagic);
    EXPECT_EQ(reply.version, shm::kVersion);
    return reply;
  }

  SharedMemory memory_{SharedMemoryLimits{}};
  Closer closer_, unmapper_;
  SharedMemory::Owner owner_ = 0;
  const std::shared_ptr<Sent> sink_ = std::make_shared<Sent>();
  const std::shared_ptr<Calls> calls_ = std::make_shared<Calls>();
  std::unique_ptr<Connection> connection_;
};

TEST_F(ConnectionTest, RegistersReleasesAndDropsTheRest) {
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  const shm::Reply first = TakeReply();
  EXPECT_EQ(first.code, 0);
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  EXPECT_EQ(TakeReply().code, 0);
  EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>(2 * kSize));
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease, first.handle), {}).ok());
  EXPECT_EQ(TakeReply().code, 0);
  EXPECT_TRUE(Becomes([&] { return memory_.mapped_bytes() == static_cast<std::int64_t>(kSize); }));
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease, first.handle), {}).ok());
  EXPECT_EQ(TakeReply().code, static_cast<int>(absl::StatusCode::kNotFound));
  connection_.reset();
  EXPECT_EQ(calls_->closed, 1);
  EXPECT_TRUE(Becomes([&] { return memory_.mapped_bytes() == 0; }));
}

TEST_F(ConnectionTest, ARegionThatTakesLongToUnmapHoldsUpNoAnswer) {
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  const shm::Reply region = TakeReply();
  const auto go_on = std::make_shared<absl::Notification>();
  unmapper_.Release(std::make_shared<const Slow>(go_on));
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease, region.handle), {}).ok());
  EXPECT_EQ(TakeReply().code, 0);
  EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>(kSize)) << "it is not unmapped here";
  go_on->Notify();
  EXPECT_TRUE(Becomes([&] { return memory_.mapped_bytes() == 0; }));
}

TEST_F(ConnectionTest, WhatWasReleasedLeavesRoomAtOnce) {
  SharedMemoryLimits limits;
  limits.max_total_bytes = kSize;
  limits.peer_shares = false;
  SharedMemory memory(limits);
  Connect(&memory);
  const absl::Cleanup before_its_memory = [&] {
    connection_.reset();
    unmapper_.Drain();
  };
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
    const shm::Reply region = TakeReply();
    ASSERT_EQ(region.code, 0) << i << ": " << region.message;
    ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
    ASSERT_EQ(TakeReply().code, static_cast<int>(absl::StatusCode::kResourceExhausted));
    ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease, region.handle), {}).ok());
    EXPECT_EQ(TakeReply().code, 0);
    closer_.Drain();  // of the refused one: only so many may wait
  }
  // Also of one that is held up for a moment, as a large region is.
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  const shm::Reply region = TakeReply();
  const auto go_on = std::make_shared<absl::Notification>();
  unmapper_.Release(std::make_shared<const Slow>(go_on));
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease, region.handle), {}).ok());
  EXPECT_EQ(TakeReply().code, 0);
  std::thread later([&] {
    absl::SleepFor(absl::Milliseconds(100));  // until the connection waits, most likely
    go_on->Notify();
  });
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  EXPECT_EQ(TakeReply().code, 0);
  later.join();
}

// Which callers ask for as a sign of life.
TEST_F(ConnectionTest, TheReleaseOfTheHandleOfZerosIsAnsweredAndChangesNothing) {
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  EXPECT_EQ(TakeReply().code, 0);
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease), {}).ok());
  EXPECT_EQ(TakeReply().code, static_cast<int>(absl::StatusCode::kNotFound));
  EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>(kSize));
}

TEST_F(ConnectionTest, AServerThatSharesNoMemoryRefusesRegions) {
  Connect(nullptr);
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  const shm::Reply reply = TakeReply();
  EXPECT_EQ(reply.code, static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_STREQ(reply.message, "this server shares no memory (--noshared_memory)");
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRelease), {}).ok());
  EXPECT_EQ(TakeReply().code, static_cast<int>(absl::StatusCode::kNotFound));
}

TEST_F(ConnectionTest, WhatDoesNotBeginWithTheMagicGoesToTheCalls) {
  const std::string fixed = Fixed(shm::Operation::kRelease);
  const std::vector<std::string> others = {"a", "attndsh", "Attndshm", fixed.substr(1),
                                           std::string(kMaxDatagramBytes, 'x')};
  for (const std::string& other : others) EXPECT_TRUE(connection_->Take(other, {}).ok());
  EXPECT_EQ(calls_->taken, others);
  calls_->answer = absl::InvalidArgumentError("no");
  EXPECT_EQ(connection_->Take("x", {}), calls_->answer);
  EXPECT_TRUE(sink_->datagrams.empty());
}

TEST_F(ConnectionTest, WhatEndsIt) {
  const std::string fixed = Fixed(shm::Operation::kRegister);
  const auto refused = [&](const std::string& bytes, int descriptors) {
    std::vector<shm::UniqueFd> fds;
    for (int i = 0; i < descriptors; ++i) fds.push_back(SealedMemory());
    return !connection_->Take(bytes, std::move(fds)).ok();
  };
  EXPECT_TRUE(refused(fixed + "x", 1));
  EXPECT_TRUE(refused(fixed.substr(0, 39), 1));
  EXPECT_TRUE(refused(fixed.substr(0, 8), 0));
  EXPECT_TRUE(refused(fixed, 2));
  EXPECT_TRUE(refused("hello", 1));
  EXPECT_TRUE(calls_->taken.empty());
  EXPECT_TRUE(sink_->datagrams.empty());
  EXPECT_EQ(memory_.mapped_bytes(), 0);
}

// Each on its closer's thread: a close may take long.
TEST_F(ConnectionTest, ClosesNoDescriptorItself) {
  const std::string fixed = Fixed(shm::Operation::kRegister);
  std::string other_version = fixed, other_operation = fixed;
  other_version[8] ^= 2;
  shm::Request request;
  std::memcpy(&request, fixed.data(), sizeof(request));
  request.operation = static_cast<shm::Operation>(9);
  std::memcpy(other_operation.data(), &request, sizeof(request));
  const struct {
    const char* what;
    std::string bytes;
    std::size_t descriptors;
  } cases[] = {
      {"a message for the calls", "hello", 1},
      {"the same with several", "hello", 3},
      {"a fixed message too long", fixed + "x", 1},
      {"one too short", fixed.substr(0, 39), 1},
      {"several", fixed, 2},
      {"another version", other_version, 1},
      {"another operation", other_operation, 1},
      {"a release", Fixed(shm::Operation::kRelease), 1},
      {"what is no memory", fixed, 1},
  };
  for (const auto& c : cases) {
    const auto go_on = std::make_shared<absl::Notification>();
    closer_.Release(std::make_shared<const Slow>(go_on));
    std::vector<shm::UniqueFd> fds;
    while (fds.size() < c.descriptors) fds.emplace_back(dup(0));
    static_cast<void>(connection_->Take(c.bytes, std::move(fds)));
    EXPECT_EQ(closer_.waiting(), c.descriptors) << c.what;
    go_on->Notify();
    closer_.Drain();
  }
  EXPECT_EQ(memory_.mapped_bytes(), 0);
}

TEST_F(ConnectionTest, OtherVersionsAndOperationsAreRefused) {
  for (const std::uint32_t version : {0U, 1U, 2U, ~0U}) {
    for (const std::uint32_t operation : {0U, 1U, 2U, 3U, ~0U}) {
      shm::Request request;
      std::memcpy(&request, Fixed(shm::Operation::kRegister).data(), sizeof(request));
      request.version = version;
      request.operation = static_cast<shm::Operation>(operation);
      ASSERT_TRUE(
          connection_->Take({reinterpret_cast<const char*>(&request), sizeof(request)}, One(SealedMemory())).ok());
      const auto code = static_cast<absl::StatusCode>(TakeReply().code);
      const absl::StatusCode of_operation = operation == 1   ? absl::StatusCode::kOk
                                            : operation == 2 ? absl::StatusCode::kNotFound
                                                             : absl::StatusCode::kUnimplemented;
      EXPECT_EQ(code, version == 1 ? of_operation : absl::StatusCode::kUnimplemented) << version << " " << operation;
    }
  }
}

// A descriptor that takes long to close is not the connection's concern, until there are too many.
TEST_F(ConnectionTest, DescriptorsThatWaitForTheirCloseAreBounded) {
  const auto go_on = std::make_shared<absl::Notification>();
  closer_.Release(std::make_shared<const Slow>(go_on));
  const auto send = [&] { return connection_->Take(Fixed(shm::Operation::kRegister), One(shm::UniqueFd(dup(0)))); };
  for (std::size_t i = 0; i < kMaxClosing; ++i) {
    ASSERT_TRUE(send().ok()) << i;
    EXPECT_EQ(TakeReply().code, static_cast<int>(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_EQ(closer_.waiting(), kMaxClosing);
  EXPECT_EQ(send().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(connection_->Take(Fixed(shm::Operation::kRegister), One(SealedMemory())).ok());
  EXPECT_EQ(TakeReply().code, 0) << "whoever sends what is taken goes on";
  go_on->Notify();
}

}  // namespace
}  // namespace attnd::server
