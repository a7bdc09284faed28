// Which targets are on this host, in every form that gRPC accepts.
#include "client/src/target.h"

#include <gtest/gtest.h>

namespace attnd::client {
namespace {

TEST(Target, IsLocal) {
  for (const char* target : {"unix:/run/attnd.sock",
                             "unix:///run/attnd.sock",
                             "unix:relative.sock",
                             "unix-abstract:name",
                             "UNIX:/run/a",
                             "localhost",
                             "localhost:1",
                             "LOCALHOST:1",
                             "LocalHost.:1",
                             "127.0.0.1",
                             "127.0.0.1:1",
                             "127.1.2.3:1",
                             "[::1]:1",
                             "[::1]",
                             "::1",
                             "[0:0:0:0:0:0:0:1]:1",
                             "[::ffff:127.0.0.1]:1",
                             "[::1%lo]:1",
                             "dns:localhost:1",
                             "dns:///localhost:1",
                             "dns:///LOCALHOST:1",
                             "DNS:///localhost:1",
                             "dns://8.8.8.8/localhost:1",
                             "dns:///127.0.0.1:1",
                             "dns:///[::1]:1",
                             "dns:///%5B::1%5D:1",
                             "ipv4:127.0.0.1:1",
                             "ipv4:127.1.2.3:1,127.0.0.1:2",
                             "ipv4:///127.0.0.1:1",
                             "ipv6:[::1]:1",
                             "ipv6:%5B::1%5D:1",
                             "passthrough:///localhost:1",
                             "passthrough:localhost:1"}) {
    EXPECT_TRUE(IsLocalTarget(target)) << target;
  }
}

TEST(Target, IsNotLocal) {
  for (const char* target : {"", "example.com:1", "dns:///example.com:1", "dns://127.0.0.1/example.com:1", "10.0.0.1:1",
                             "128.0.0.1:1", "ipv4:10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "ipv6:[::2]:1",
                             "[::ffff:10.0.0.1]:1", "127.example.com:1", "localhost.example.com:1", "notlocalhost:1",
                             "unixhost:1", "unix.example.com:1", "dns:", "dns://", "dns:///", "%6"}) {
    EXPECT_FALSE(IsLocalTarget(target)) << target;
  }
}

}  // namespace
}  // namespace attnd::client
