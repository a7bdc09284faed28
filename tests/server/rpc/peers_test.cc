#include "server/rpc/peers.h"

#include <arpa/inet.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "one_call_server.h"
#include "server/rpc/finish_now.h"

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

// Every prefix length of both families: the last bit that counts, and the first that does not.
TEST(PeersTest, EveryBitOfAPrefixCounts) {
  const auto with_bit = [](int family, int bit) {
    std::array<std::uint8_t, 16> address{};
    address[static_cast<std::size_t>(bit / 8)] = static_cast<std::uint8_t>(0x80 >> bit % 8);
    std::array<char, INET6_ADDRSTRLEN> text{};
    inet_ntop(family, address.data(), text.data(), text.size());
    return std::string(text.data());
  };
  for (const auto& [family, zero, bits] : {std::tuple{AF_INET, "0.0.0.0", 32}, {AF_INET6, "::", 128}}) {
    for (int prefix = 0; prefix <= bits; ++prefix) {
      const AddressRange range = Range(absl::StrCat(zero, "/", prefix).c_str());
      EXPECT_TRUE(range.Contains(zero)) << prefix;
      if (prefix > 0) {
        EXPECT_FALSE(range.Contains(with_bit(family, prefix - 1))) << zero << "/" << prefix;
      }
      if (prefix < bits) {
        EXPECT_TRUE(range.Contains(with_bit(family, prefix))) << zero << "/" << prefix;
      }
      // Bits beyond the prefix are ignored.
      if (prefix < bits) {
        EXPECT_TRUE(Range(absl::StrCat(with_bit(family, prefix), "/", prefix).c_str()).Contains(zero)) << prefix;
      }
    }
  }
}

// The accounts that a call's memory, and a session's, are counted in.
class PeersOfCallsTest : public testing::Test {
 protected:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  // The names of the call's two accounts, among those that these tests expect.
  std::string AccountsOf(const std::vector<AddressRange>& proxies, const Headers& headers) {
    const Peers peers(ledger_, proxies);
    std::shared_ptr<memory::Account> of_call, of_session;
    OneCallServer server([&](grpc::CallbackServerContext& context, grpc::ByteBuffer*) {
      of_call = peers.AccountOf(context);
      of_session = peers.SessionAccountOf(context);
      return FinishNow(context, grpc::Status::OK);
    });
    EXPECT_TRUE(OneCall(server, headers).Await().ok());
    for (const auto& [name, account] : accounts_) {
      if (account != of_call) continue;
      EXPECT_EQ(of_session, ledger_.AccountOf("sessions of " + name)) << name;
      return name;
    }
    return "another";
  }

  memory::Ledger ledger_{{.total = 100}};
  std::vector<std::pair<std::string, std::shared_ptr<memory::Account>>> accounts_ = [this] {
    std::vector<std::pair<std::string, std::shared_ptr<memory::Account>>> accounts;
    for (const char* name : {"127.0.0.1", "192.0.2.1", "192.0.2.2"})
      accounts.emplace_back(name, ledger_.AccountOf(name));
    return accounts;
  }();
};

TEST_F(PeersOfCallsTest, OnlyATrustedProxyNamesThePeer) {
  const Headers one = {{"x-forwarded-for", "192.0.2.1"}};
  EXPECT_EQ(AccountsOf({}, {}), "127.0.0.1");
  EXPECT_EQ(AccountsOf({}, one), "127.0.0.1");
  EXPECT_EQ(AccountsOf({Range("10.0.0.0/8")}, one), "127.0.0.1") << "the caller is no proxy of ours";
  EXPECT_EQ(AccountsOf({Range("192.0.2.1")}, one), "127.0.0.1");
  const std::vector<AddressRange> proxies = {Range("10.0.0.0/8"), Range("127.0.0.1")};
  EXPECT_EQ(AccountsOf(proxies, {}), "127.0.0.1") << "it names nobody";
  EXPECT_EQ(AccountsOf(proxies, {{"x-forwarded-for", "unknown"}}), "127.0.0.1");
  EXPECT_EQ(AccountsOf(proxies, one), "192.0.2.1");
  EXPECT_EQ(AccountsOf(proxies, {{"x-forwarded-for", "192.0.2.1, 192.0.2.2"}}), "192.0.2.2");
  EXPECT_EQ(AccountsOf(proxies, {{"x-forwarded-for", "192.0.2.1, 192.0.2.2, 10.1.1.1"}}), "192.0.2.2");
  EXPECT_EQ(AccountsOf(proxies, {{"x-forwarded-for", "192.0.2.1"}, {"x-forwarded-for", "192.0.2.2"}}), "192.0.2.2")
      << "the last header is the last proxy's";
  EXPECT_EQ(AccountsOf(proxies, {{"x-forwarded-for", "192.0.2.2"}, {"x-forwarded-for", "10.0.0.1"}}), "192.0.2.2");
}

}  // namespace
}  // namespace attnd::server
