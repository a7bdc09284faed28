// What a call with shared memory never waits for, and what signals do to it.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "attnd/shm/protocol.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/shared_memory.h"
#include "fake_server.h"
#include "gtest/gtest.h"
#include "signals.h"
#include "temp_folder.h"
#include "test_request.h"

namespace attnd::client {
namespace {

shm::UniqueFd ListenAt(const std::string& path) {
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd.get(), 16), 0);
  return fd;
}

// Answers calls at a Unix socket; what happens at the socket beside it is the test's.
class SharedMemoryTest : public testing::Test {
 protected:
  std::string path() const { return folder_.path() + "/attnd.sock"; }
  std::string shm_path() const { return path() + shm::kSocketSuffix; }
  // By gRPC alone, as the socket is the test's.
  Client NewClient() const {
    ClientOptions options;
    options.local_calls = false;
    return *Client::Create("unix:" + path(), options);
  }

  const test::TempFolder folder_;
  FakeAttention attention_;
  FakeServer server_{{&attention_}, "unix:" + path()};
};

// Waits until there is something to accept or receive.
bool Ready(int fd) {
  constexpr int kTimeout = 20'000;
  pollfd polled{fd, POLLIN, 0};
  return poll(&polled, 1, kTimeout) == 1;
}

// A server that takes connections, by the kernel's queue, and never says anything. A client that waits for it gives up
// and closes its connection; so while that is open, nothing that has returned waited to the end.
class SilentTest : public SharedMemoryTest {
 protected:
  // Whether the client has asked for something and still waits for an answer.
  void ExpectStillAsking() {
    ASSERT_TRUE(Ready(listener_.get())) << "the client did not connect";
    connection_ = shm::UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    shm::Request request;
    ASSERT_TRUE(Ready(connection_.get()));
    ASSERT_EQ(recv(connection_.get(), &request, sizeof(request), 0), static_cast<ssize_t>(sizeof(request)));
    EXPECT_EQ(request.operation, shm::Operation::kRegister);
    pollfd polled{connection_.get(), POLLIN | POLLRDHUP, 0};
    EXPECT_EQ(poll(&polled, 1, 0), 0) << "the client has waited for an answer to the end";
  }

  const shm::UniqueFd listener_ = ListenAt(shm_path());
  shm::UniqueFd connection_;
};

CallOptions Soon() {
  CallOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(50);
  return options;
}

TEST_F(SilentTest, ACallKeepsItsOwnDeadline) {
  Client client = NewClient();
  TestRequest t(Large());
  EXPECT_EQ(client.Compute(t.request, Soon()).status().code(), absl::StatusCode::kDeadlineExceeded);
  ExpectStillAsking();
}

TEST_F(SilentTest, ACallWithoutWaitingKeepsItsOwnDeadline) {
  Client client = NewClient();
  TestRequest t(Large());
  EXPECT_EQ(client.ComputeFuture(t.request, Soon()).get().status().code(), absl::StatusCode::kDeadlineExceeded);
  ExpectStillAsking();
}

TEST_F(SilentTest, StartingACallWaitsForNothing) {
  Client client = NewClient();
  TestRequest t(Large());
  std::future<absl::StatusOr<ComputeReply>> reply = client.ComputeFuture(t.request);
  ExpectStillAsking();
  EXPECT_TRUE(reply.get().ok());
}

TEST_F(SilentTest, FreeingABufferWaitsForNothing) {
  Client client = NewClient();
  TestRequest t(Large());
  SharedBuffer buffer = *client.AllocateBuffer(t.output_values * sizeof(float));
  ComputeRequest request = t.request;
  request.output = {buffer.data(), buffer.size()};
  EXPECT_FALSE(client.Compute(request, Soon()).ok());
  buffer = SharedBuffer();
  ExpectStillAsking();
}

TEST_F(SilentTest, ACallWithTimeSendsItsTensorsAndTheNextOneAsksNoMore) {
  Client client = NewClient();
  TestRequest t(Large());
  EXPECT_TRUE(client.Compute(t.request).ok());
  const shm::UniqueFd first(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(client.Compute(t.request).ok());
  pollfd polled{listener_.get(), POLLIN, 0};
  EXPECT_EQ(poll(&polled, 1, 0), 0) << "the client connected again";
}

TEST_F(SilentTest, AClientThatMayNotShareNeverAsks) {
  ClientOptions options;
  options.shared_memory = options.local_calls = false;
  Client client = *Client::Create("unix:" + path(), options);
  TestRequest t(Large());
  EXPECT_TRUE(client.Compute(t.request).ok());
  pollfd polled{listener_.get(), POLLIN, 0};
  EXPECT_EQ(poll(&polled, 1, 0), 0);
}

// A second socket that answers each message, as many times as the kernel lets it.
class AnsweringTest : public SharedMemoryTest {
 protected:
  AnsweringTest() {
    EXPECT_EQ(pipe2(stop_, O_CLOEXEC), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~AnsweringTest() override {
    close(stop_[1]);
    thread_.join();
    close(stop_[0]);
  }

  std::atomic<int> connections_{0}, registered_{0}, released_{0};

 private:
  void Serve() {
    std::vector<shm::UniqueFd> fds;
    while (true) {
      std::vector<pollfd> polled{{stop_[0], POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      for (const shm::UniqueFd& fd : fds) polled.push_back({fd.get(), POLLIN, 0});
      poll(polled.data(), polled.size(), -1);
      if (polled[0].revents != 0) return;
      for (std::size_t i = 2; i < polled.size(); ++i) {
        if (polled[i].revents != 0 && !Answer(polled[i].fd)) fds[i - 2] = shm::UniqueFd();
      }
      std::erase_if(fds, [](const shm::UniqueFd& fd) { return !fd.valid(); });
      if (polled[1].revents == 0) continue;
      fds.emplace_back(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ++connections_;
    }
  }

  bool Answer(int fd) {
    shm::Request request;
    if (recv(fd, &request, sizeof(request), 0) != sizeof(request)) return false;
    ++(request.operation == shm::Operation::kRegister ? registered_ : released_);
    shm::Reply reply{};
    reply.magic = shm::kMagic;
    reply.version = shm::kVersion;
    reply.handle[0] = static_cast<unsigned char>(registered_.load());
    return send(fd, &reply, sizeof(reply), MSG_NOSIGNAL) == sizeof(reply);
  }

  const shm::UniqueFd listener_ = ListenAt(shm_path());
  int stop_[2];
  std::thread thread_;
};

TEST_F(AnsweringTest, SignalsCostNoRegionAndNoConnection) {
  const auto memory = std::make_shared<SharedMemory>(shm_path());
  const test::Signals signals;
  const std::shared_ptr<void> kept = *memory->Allocate(4096);
  memory->SettleNow({{kept.get(), 4096}}, absl::InfiniteFuture());
  const auto place = memory->Find({kept.get(), 4096});
  ASSERT_TRUE(place.has_value());
  for (int i = 0; i < 500; ++i) {
    const std::shared_ptr<void> region = *memory->Allocate(4096);
    memory->SettleNow({{region.get(), 4096}}, absl::InfiniteFuture());
    ASSERT_TRUE(memory->Find({region.get(), 4096}).has_value()) << "after " << i << " registrations";
  }
  ASSERT_TRUE(memory->Find({kept.get(), 4096}).has_value());
  EXPECT_EQ(memory->Find({kept.get(), 4096})->region, place->region);
  EXPECT_EQ(connections_.load(), 1);
}

TEST_F(AnsweringTest, FreedRegionsAreReleased) {
  const auto memory = std::make_shared<SharedMemory>(shm_path());
  for (int i = 0; i < 3; ++i) {
    const std::shared_ptr<void> region = *memory->Allocate(4096);
    memory->SettleNow({{region.get(), 4096}}, absl::InfiniteFuture());
  }
  // The messages travel in order: when this one is answered, so are those before it.
  const std::shared_ptr<void> last = *memory->Allocate(4096);
  memory->SettleNow({{last.get(), 4096}}, absl::InfiniteFuture());
  EXPECT_EQ(registered_.load(), 4);
  EXPECT_EQ(released_.load(), 3);
}

}  // namespace
}  // namespace attnd::client
