#include "server/net/address.h"

#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

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

TEST(AddressTest, HostsAndPorts) {
  struct Case {
    std::string address, host, port;
  };
  for (const Case& c : {Case{"127.0.0.1:0", "127.0.0.1", "0"}, Case{"localhost:65535", "localhost", "65535"},
                        Case{"[::1]:50051", "::1", "50051"}, Case{"[fe80::1%eth0]:1", "fe80::1%eth0", "1"}}) {
    const absl::StatusOr<Address> address = ParseAddress(c.address);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->unix_path, std::nullopt);
    EXPECT_EQ(address->host, c.host);
    EXPECT_EQ(address->port, c.port);
  }
  EXPECT_EQ(ParseAddress("unix:///a")->unix_path, "/a");
}

TEST(AddressTest, OtherFormsAreRefused) {
  // "::1:50051" is also an address without a port, which is how gRPC reads it.
  for (const char* bad :
       {"", "localhost", ":50051", "localhost:", "localhost:x", "localhost:65536", "localhost:-1", "localhost:+1",
        "localhost: 1", "::1:50051", "[::1]", "[localhost:1", "localhost]:1", "[::1:1", "[]:1", "[localhost]:1",
        "ipv4:127.0.0.1:1", "dns:localhost:1", "unix-abstract:a"}) {
    const absl::Status status = ParseAddress(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--listen: expected host:port, [v6]:port or unix:path"))
        << bad;
  }
  for (const char* bad : {"unix://rel.sock", "unix://tmp/x.sock", "unix:a?b", "unix:%00"}) {
    EXPECT_THAT(std::string(ParseAddress(bad).status().message()), HasSubstr("expected unix:path or unix:///absolute"))
        << bad;
  }
}

TEST(AddressTest, TheBoundPortTakesTheAddressesPlace) {
  EXPECT_EQ(WithPort("127.0.0.1:0", 4711), "127.0.0.1:4711");
  EXPECT_EQ(WithPort("[::1]:0", 4711), "[::1]:4711");
  EXPECT_EQ(WithPort("unix:a:0", 4711), "unix:a:0");
}

}  // namespace
}  // namespace attnd::server
