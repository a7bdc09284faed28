#include "server/net/listen.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string MessageOf(const std::vector<std::string>& addresses) {
  const absl::Status status = ListenAt(addresses, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  return std::string(status.message());
}

TEST(ListenAtTest, SaysWhichPortIsBound) {
  const auto listening = ListenAt({"127.0.0.1:0", "[::]:0"}, {});
  ASSERT_TRUE(listening.ok()) << listening.status();
  ASSERT_EQ(listening->addresses.size(), 2U);
  EXPECT_THAT(listening->addresses[0], StartsWith("127.0.0.1:"));
  EXPECT_THAT(listening->addresses[1], StartsWith("[::]:"));
  for (const std::string& address : listening->addresses) EXPECT_THAT(address, testing::Not(testing::EndsWith(":0")));
}

TEST(ListenAtTest, OneAddressTwiceIsRefusedHoweverItIsSpelled) {
  std::string port;
  {
    const auto free = ListenAt({"127.0.0.1:0"}, {});
    ASSERT_TRUE(free.ok());
    port = std::vector<std::string>(absl::StrSplit(free->addresses[0], ':'))[1];
  }
  const test::TempFolder folder;
  std::filesystem::create_directory_symlink(folder.path(), folder.path() + "/link");
  const std::pair<std::string, std::string> cases[] = {
      {"127.0.0.1:" + port, "127.0.0.1:" + port},
      {"127.0.0.1:" + port, "localhost:" + port},
      {"0.0.0.0:" + port, "[::]:" + port},
      {"0.0.0.0:" + port, "127.0.0.1:" + port},
      {"unix:" + folder.path() + "/s", "unix://" + folder.path() + "/./s"},
      {"unix:" + folder.path() + "/s", "unix:" + folder.path() + "/%73"},
      {"unix:" + folder.path() + "/s", "unix:" + folder.path() + "/link/s"},
      {"unix:" + folder.path() + "/s", "unix:" + std::filesystem::relative(folder.path()).string() + "/s"},
  };
  for (const auto& [one, other] : cases) {
    const std::string message = MessageOf({one, other});
    EXPECT_THAT(message, StartsWith("cannot listen on " + other + ": "));
    EXPECT_THAT(message, HasSubstr("(--listen names " + one + " too)"));
  }
}

TEST(ListenAtTest, UnixSockets) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/s p";
  {
    const auto listening = ListenAt({"unix:" + folder.path() + "/s%20p"}, {});
    ASSERT_TRUE(listening.ok()) << listening.status();
    EXPECT_TRUE(std::filesystem::is_socket(path));
    EXPECT_THAT(MessageOf({"unix:" + path}), HasSubstr("another process holds the lock " + path + ".lock"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "socket and lock are gone";
  EXPECT_THAT(MessageOf({"unix:" + folder.path() + "/none/s"}), HasSubstr("No such file"));
  EXPECT_THAT(MessageOf({"unix:" + folder.path() + "/" + std::string(200, 'x')}), HasSubstr("1 to 107 bytes"));
}

// Each of many processes that start at once asks for the same name; those that get it keep it.
TEST(ListenAtTest, OneOfThoseThatStartAtOnceGetsTheName) {
  const test::TempFolder folder;
  for (int round = 0; round < 20; ++round) {
    constexpr int kProcesses = 4;
    int begin[2], hold[2], results[2];
    for (int* const ends : {begin, hold, results}) ASSERT_EQ(pipe(ends), 0);
    for (int i = 0; i < kProcesses; ++i) {
      if (fork() != 0) continue;
      close(begin[1]);
      close(hold[1]);
      char byte;
      (void)!read(begin[0], &byte, 1);
      const auto listening = ListenAt({"unix:" + folder.path() + "/s"}, {});
      (void)!write(results[1], listening.ok() ? "y" : "n", 1);
      (void)!read(hold[0], &byte, 1);
      _exit(0);  // leaves the files of socket and lock behind
    }
    close(begin[1]);
    int got_it = 0;
    for (int i = 0; i < kProcesses; ++i) {
      char result = 0;
      ASSERT_EQ(read(results[0], &result, 1), 1);
      if (result == 'y') ++got_it;
    }
    EXPECT_EQ(got_it, 1) << "round " << round;
    close(hold[1]);
    while (waitpid(-1, nullptr, 0) > 0) continue;
    for (const int end : {begin[0], hold[0], results[0], results[1]}) close(end);
  }
}

}  // namespace
}  // namespace attnd::server
