#include "server/net/address.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "attnd/shm/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/net/unix_socket.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

TEST(AddressTest, UnixPaths) {
  EXPECT_EQ(UnixPathOf("unix:a/b"), "a/b");
  EXPECT_EQ(UnixPathOf("unix:/a/b"), "/a/b");
  EXPECT_EQ(UnixPathOf("unix:///a/b"), "/a/b");
  EXPECT_EQ(UnixPathOf("unix:"), "");
  EXPECT_EQ(UnixPathOf("127.0.0.1:1"), std::nullopt);
  EXPECT_EQ(UnixPathOf("unixhost:1"), std::nullopt);
}

TEST(AddressTest, Forms) {
  for (const char* good : {"127.0.0.1:0", "localhost:65535", "[::1]:50051", "[::]:1", "unix:a", "unix:///a"}) {
    EXPECT_TRUE(CheckAddress(good).ok()) << good;
  }
  for (const char* bad : {"", "localhost", ":50051", "localhost:", "localhost:x", "localhost:65536", "localhost:-1"}) {
    const absl::Status status = CheckAddress(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--listen: expected host:port or unix:path")) << bad;
  }
}

TEST(AddressTest, TheBoundPortTakesTheAddressesPlace) {
  EXPECT_EQ(WithPort("127.0.0.1:0", 4711), "127.0.0.1:4711");
  EXPECT_EQ(WithPort("[::1]:0", 4711), "[::1]:4711");
  EXPECT_EQ(WithPort("unix:a:0", 4711), "unix:a:0");
}

// The loopback's port `port` (0: any), taken.
class TakenPort {
 public:
  TakenPort() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_.get(), 1), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  int port() const { return port_; }

 private:
  const shm::UniqueFd fd_;
  int port_ = 0;
};

TEST(CanListenTest, Tcp) {
  EXPECT_TRUE(CheckCanListen("127.0.0.1:0").ok());
  const TakenPort taken;
  const std::string address = absl::StrCat("127.0.0.1:", taken.port());
  EXPECT_EQ(CheckCanListen(address).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(CheckCanListen(address).message()), HasSubstr("cannot listen on " + address + ": Address"));
  EXPECT_EQ(CheckCanListen("no such host:1").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CheckCanListen("192.0.2.1:0").code(), absl::StatusCode::kUnavailable) << "an address of another machine";
}

TEST(CanListenTest, Unix) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/s";
  EXPECT_TRUE(CheckCanListen("unix:" + path).ok());
  {
    const auto listener = ListenSeqpacket(path, 0600);
    ASSERT_TRUE(listener.ok());
    EXPECT_THAT(std::string(CheckCanListen("unix:" + path).message()), HasSubstr("another process listens on it"));
    EXPECT_THAT(std::string(CheckCanListen("unix://" + path).message()), HasSubstr("another process listens on it"));
  }
  EXPECT_TRUE(CheckCanListen("unix:" + path).ok()) << "a stale socket is no obstacle";
  EXPECT_THAT(std::string(CheckCanListen("unix:" + folder.path() + "/none/s").message()), HasSubstr("No such file"));
  EXPECT_THAT(std::string(CheckCanListen("unix:").message()), HasSubstr("expected a path of 1 to 107 bytes"));
}

}  // namespace
}  // namespace attnd::server
