#include "server/net/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "attnd/shm/unique_fd.h"
#include "gtest/gtest.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

class UnixSocketTest : public testing::Test {
 protected:
  const test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/s";
};

TEST(SocketModeTest, OctalDigits) {
  EXPECT_EQ(*ParseSocketMode("0660"), 0660U);
  EXPECT_EQ(*ParseSocketMode("777"), 0777U);
  EXPECT_EQ(*ParseSocketMode("0"), 0U);
  for (const char* bad : {"", "0668", "rw", "01777", "1000", "-1", "00660", "0x1f"}) {
    EXPECT_EQ(ParseSocketMode(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST_F(UnixSocketTest, PathsThatDoNotFitAnAddressAreRefused) {
  EXPECT_TRUE(SocketAddress(std::string(107, 'x')).ok());
  EXPECT_EQ(SocketAddress(std::string(108, 'x')).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SocketAddress("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ListenSeqpacket(std::string(200, 'x'), 0600).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UnixSocketTest, AnswersWhileASocketOfEitherTypeListens) {
  const sockaddr_un address = *SocketAddress(path_);
  EXPECT_FALSE(SomebodyAnswersAt(address)) << "no file";
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    {
      const shm::UniqueFd listener(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
      ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      EXPECT_FALSE(SomebodyAnswersAt(address)) << "bound, but it does not listen";
      ASSERT_EQ(listen(listener.get(), 8), 0);
      EXPECT_TRUE(SomebodyAnswersAt(address));
    }
    EXPECT_FALSE(SomebodyAnswersAt(address)) << "its process has gone";
    std::filesystem::remove(path_);
  }
}

// connect() would block, or fail with EAGAIN as here, and not with ECONNREFUSED.
TEST_F(UnixSocketTest, AnswersAlsoWhereTheQueueIsFull) {
  const sockaddr_un address = *SocketAddress(path_);
  const shm::UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  std::vector<shm::UniqueFd> waiting;
  bool full = false;
  while (!full && waiting.size() < 100) {
    waiting.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    full = connect(waiting.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0;
  }
  ASSERT_TRUE(full);
  EXPECT_TRUE(SomebodyAnswersAt(address));
}

TEST_F(UnixSocketTest, OnlySocketsThatNobodyAnswersAtAreRemoved) {
  EXPECT_TRUE(RemoveStaleSocket(path_).ok()) << "nothing there";
  {
    const auto live = ListenSeqpacket(path_, 0600);
    ASSERT_TRUE(live.ok()) << live.status();
    EXPECT_EQ(RemoveStaleSocket(path_).code(), absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(ListenSeqpacket(path_, 0600).status().code(), absl::StatusCode::kAlreadyExists);
  }
  EXPECT_TRUE(std::filesystem::exists(path_)) << "stale now";
  EXPECT_TRUE(RemoveStaleSocket(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));

  EXPECT_EQ(RemoveStaleSocket(folder_.path()).code(), absl::StatusCode::kAlreadyExists);
  std::ofstream(path_) << "a file";
  EXPECT_EQ(RemoveStaleSocket(path_).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, SocketsHaveThePermissionsAskedFor) {
  for (const mode_t mode : {0600U, 0660U, 0666U}) {
    const auto listener = ListenSeqpacket(path_, mode);
    ASSERT_TRUE(listener.ok()) << listener.status();
    struct stat file;
    ASSERT_EQ(stat(path_.c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777U, mode);
    std::filesystem::remove(path_);
  }
}

TEST(SocketModeScopeTest, TheMaskIsAsBefore) {
  const mode_t before = umask(022);
  { const SocketModeScope scope(0660); }
  EXPECT_EQ(umask(before), 022U);
}

}  // namespace
}  // namespace attnd::server
