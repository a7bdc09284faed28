// The socket beside the gRPC socket, with the client's own code and with callers who break its protocol.
#include "server/shm/listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/src/shared_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/net/unix_socket.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

constexpr std::size_t kSize = 1 << 16;

std::size_t OpenDescriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

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

// Waits, as the client's messages travel on a thread of their own.
template <typename Condition>
bool Becomes(const Condition& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!condition() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  return condition();
}

// A caller that speaks the protocol by hand.
class RawCaller {
 public:
  explicit RawCaller(const std::string& path) : fd_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    connected_ = connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }

  bool connected() const { return connected_; }

  bool Send(const void* bytes, std::size_t size, const std::vector<int>& fds = {}) {
    iovec data{const_cast<void*>(bytes), size};
    std::vector<char> control(CMSG_SPACE(sizeof(int) * fds.size()));
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(part), fds.data(), sizeof(int) * fds.size());
    }
    return sendmsg(fd_.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }

  // nullopt once the server has closed the connection.
  std::optional<shm::Reply> Receive() {
    shm::Reply reply;
    if (recv(fd_.get(), &reply, sizeof(reply), 0) != sizeof(reply)) return std::nullopt;
    return reply;
  }

  int fd() const { return fd_.get(); }

 private:
  shm::UniqueFd fd_;
  bool connected_;
};

shm::Request RegisterRequest(std::uint64_t size) {
  shm::Request request{};
  request.magic = shm::kMagic;
  request.version = shm::kVersion;
  request.operation = shm::Operation::kRegister;
  request.size = size;
  return request;
}

shm::UniqueFd SealedMemory() {
  shm::UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (ftruncate(fd.get(), kSize) != 0 || fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) return {};
  return fd;
}

class SharedMemoryListenerTest : public testing::Test {
 protected:
  SharedMemoryListenerTest() { Start(); }
  void Start() {
    auto listener = SharedMemoryListener::Create(path(), 0600, memory_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }
  std::string path() const { return folder_.path() + "/s.shm"; }

  std::optional<shm::Handle> Register(RawCaller& caller) {
    const shm::UniqueFd fd = SealedMemory();
    const shm::Request request = RegisterRequest(kSize);
    caller.Send(&request, sizeof(request), {fd.get()});
    const std::optional<shm::Reply> reply = caller.Receive();
    if (!reply.has_value() || reply->code != 0) return std::nullopt;
    return reply->handle;
  }

  // Returns once the server has closed the caller's connection, which it does after dropping the regions.
  static void AwaitClosed(RawCaller& caller) { EXPECT_FALSE(caller.Receive().has_value()); }

  const test::TempFolder folder_;
  const std::shared_ptr<SharedMemory> memory_ = std::make_shared<SharedMemory>(SharedMemoryLimits{});
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
  EXPECT_EQ(memory_->mapped_bytes(), 0);
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
    EXPECT_EQ(stays.Receive()->code, static_cast<int>(absl::StatusCode::kNotFound));
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
  const shm::UniqueFd fd = SealedMemory();
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
  EXPECT_EQ(OpenDescriptors(), descriptors + 1) << "`fd` and nothing else";
  EXPECT_EQ(memory_->mapped_bytes(), static_cast<std::int64_t>(kSize));
  EXPECT_TRUE(Register(good).has_value());
}

TEST_F(SharedMemoryListenerTest, RefusalsAreAnswered) {
  RawCaller caller(path());
  const auto code = [&](const shm::Request& request, const std::vector<int>& fds) {
    EXPECT_TRUE(caller.Send(&request, sizeof(request), fds));
    const std::optional<shm::Reply> reply = caller.Receive();
    EXPECT_TRUE(reply.has_value());
    EXPECT_NE(reply->message[0], '\0');
    return static_cast<absl::StatusCode>(reply->code);
  };
  const shm::UniqueFd fd = SealedMemory();
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

TEST_F(SharedMemoryListenerTest, ACallerThatDoesNotReadItsAnswersIsClosed) {
  RawCaller caller(path());
  const shm::Request request = RegisterRequest(kSize);
  // Ends because the server closes the connection: answers that nobody reads fill the socket, and it does not wait.
  while (caller.Send(&request, sizeof(request))) {
  }
  while (caller.Receive().has_value()) {
  }
  RawCaller next(path());
  EXPECT_TRUE(Register(next).has_value());
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
