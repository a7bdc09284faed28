#include "server/rpc/peers.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

AddressRange Range(const char* text) {
  absl::StatusOr<AddressRange> range = AddressRange::Parse(text);
  EXPECT_TRUE(range.ok()) << text;
  return *range;
}

TEST(PeersTest, APeerIsTheAddressWithoutItsPort) {
  for (const auto& [peer, name] : std::vector<std::pair<const char*, const char*>>{
           {"ipv4:127.0.0.1:53412", "127.0.0.1"},
           {"ipv4:10.0.0.7:1", "10.0.0.7"},
           {"ipv6:[::1]:53412", "::1"},
           {"ipv6:%5B2001:db8::7%5D:53412", "2001:db8::7"},
           {"ipv6:[::ffff:10.0.0.7]:53412", "10.0.0.7"},
           {"ipv6:%5B::ffff:10.0.0.7%5D:9", "10.0.0.7"},
           {"unix:", "unix"},
           {"unix:/run/attnd.sock", "unix"},
           {"unix-abstract:x", "unix"},
           {"inproc", "inproc"},
           {"", ""},
       }) {
    EXPECT_EQ(PeerName(peer), name) << peer;
  }
}

TEST(PeersTest, RangesOfAddresses) {
  EXPECT_TRUE(Range("10.0.0.1").Contains("10.0.0.1"));
  EXPECT_FALSE(Range("10.0.0.1").Contains("10.0.0.2"));
  EXPECT_TRUE(Range("10.0.0.0/8").Contains("10.200.3.4"));
  EXPECT_FALSE(Range("10.0.0.0/8").Contains("11.0.0.1"));
  EXPECT_TRUE(Range("10.0.16.0/20").Contains("10.0.31.255"));
  EXPECT_FALSE(Range("10.0.16.0/20").Contains("10.0.32.0"));
  EXPECT_TRUE(Range("10.0.0.0/8").Contains("::ffff:10.1.1.1"));
  EXPECT_TRUE(Range("0.0.0.0/0").Contains("1.2.3.4"));
  EXPECT_FALSE(Range("0.0.0.0/0").Contains("::1"));
  EXPECT_TRUE(Range("fd00::/8").Contains("fd12::3"));
  EXPECT_FALSE(Range("fd00::/8").Contains("fe80::3"));
  EXPECT_TRUE(Range("::/0").Contains("fe80::3"));
  EXPECT_TRUE(Range("::1").Contains("::1"));
  EXPECT_FALSE(Range("::/0").Contains("unix"));
  for (const char* bad : {"", "x", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8/8", "::/129",
                          "10.0.0.1:80", "[::1]", "proxy.example"}) {
    EXPECT_EQ(AddressRange::Parse(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(PeersTest, TheLastHopThatIsNoTrustedProxyIsThePeer) {
  const std::vector<AddressRange> proxies = {Range("10.0.0.0/8"), Range("fd00::/8")};
  for (const auto& [forwarded, name] : std::vector<std::pair<const char*, const char*>>{
           {"192.0.2.1", "192.0.2.1"},
           {"198.51.100.9, 192.0.2.1", "192.0.2.1"},  // what stands before is what the caller says
           {"198.51.100.9,192.0.2.1, 10.0.0.3 ,fd00::5", "192.0.2.1"},
           {"192.0.2.1:1234", "192.0.2.1"},
           {"[2001:DB8:0::7]:1234", "2001:db8::7"},
           {"2001:db8::7", "2001:db8::7"},
           {"::ffff:192.0.2.1", "192.0.2.1"},
           {"10.0.0.3", ""},
           {"unknown", ""},
           {"192.0.2.1, unknown", ""},
           {"192.0.2.1,", ""},
           {"", ""},
       }) {
    EXPECT_EQ(ForwardedPeer(forwarded, proxies), name) << forwarded;
  }
}

}  // namespace
}  // namespace attnd::server
