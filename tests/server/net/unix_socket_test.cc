#include "server/net/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attnd/shm/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temp_folder.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

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
  EXPECT_EQ(ListenUnix(std::string(200, 'x'), SOCK_STREAM, 0600).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UnixSocketTest, AnswersWhileASocketOfEitherTypeListens) {
  const sockaddr_un address = *SocketAddress(path_);
  EXPECT_EQ(WhoListensAt(address), Listens::kNobody) << "no file";
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    {
      const shm::UniqueFd listener(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
      ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      EXPECT_EQ(WhoListensAt(address), Listens::kNobody) << "bound, but it does not listen";
      ASSERT_EQ(listen(listener.get(), 8), 0);
      EXPECT_EQ(WhoListensAt(address), Listens::kSomebody);
    }
    EXPECT_EQ(WhoListensAt(address), Listens::kNobody) << "its process has gone";
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
  EXPECT_EQ(WhoListensAt(address), Listens::kSomebody);
}

// A socket of another program, which knows no lock.
shm::UniqueFd Foreign(const std::string& path) {
  const sockaddr_un address = *SocketAddress(path);
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd.get(), 8), 0);
  return fd;
}

std::string TakeFails(const std::string& path) { return std::string(UnixName::Take(path).status().message()); }

TEST_F(UnixSocketTest, OnlySocketsThatNobodyListensAtAreRemoved) {
  EXPECT_TRUE(UnixName::Take(path_).ok()) << "nothing there";
  {
    const shm::UniqueFd foreign = Foreign(path_);
    EXPECT_THAT(TakeFails(path_), HasSubstr("another process listens at"));
  }
  EXPECT_TRUE(std::filesystem::exists(path_)) << "stale now";
  EXPECT_TRUE(UnixName::Take(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));

  std::ofstream(path_) << "a file";
  EXPECT_THAT(TakeFails(path_), HasSubstr("is not a socket"));
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, ANameIsOneListeners) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    absl::StatusOr<ListeningSocket> first = ListenUnix(path_, type, 0600);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_THAT(TakeFails(path_), HasSubstr("another process holds the lock"));
    first->Close();
    EXPECT_FALSE(std::filesystem::exists(path_));
    EXPECT_THAT(TakeFails(path_), HasSubstr("another process holds the lock"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(UnixSocketTest, AListenerIsOfItsTypeAndDoesNotBlock) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    const absl::StatusOr<ListeningSocket> listener = ListenUnix(path_, type, 0600);
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_NE(fcntl(listener->fd.get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(fcntl(listener->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
    for (const auto& [option, expected] : {std::pair{SO_TYPE, type}, {SO_ACCEPTCONN, 1}}) {
      int value = -1;
      socklen_t size = sizeof(value);
      ASSERT_EQ(getsockopt(listener->fd.get(), SOL_SOCKET, option, &value, &size), 0);
      EXPECT_EQ(value, expected);
    }
  }
}

// If it cannot be bound, nothing is left of the attempt.
TEST_F(UnixSocketTest, AFailedAttemptLeavesNoLock) {
  std::ofstream(path_) << "a file";
  EXPECT_EQ(ListenUnix(path_, SOCK_STREAM, 0600).status().code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::remove(path_);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  absl::StatusOr<std::unique_ptr<UnixName>> name = UnixName::Take(path_);
  ASSERT_TRUE(name.ok());
  EXPECT_FALSE((*name)->Bind(-1, 0600).ok());
  EXPECT_THAT(std::string((*name)->Bind(-1, 0600).message()), HasSubstr("cannot bind " + path_));
  // A file that it has not bound is not its own to remove.
  std::ofstream(path_) << "a file";
  (*name)->RemoveSocket();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, AnotherSocketInItsPlaceStays) {
  absl::StatusOr<ListeningSocket> first = ListenUnix(path_, SOCK_STREAM, 0600);
  ASSERT_TRUE(first.ok()) << first.status();
  std::filesystem::rename(path_, path_ + ".moved");
  const shm::UniqueFd foreign = Foreign(path_);
  first->Close();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

// In a folder such as /tmp nobody removes another's files.
TEST_F(UnixSocketTest, NamesTheOwnerOfAnothersSocket) {
  if (geteuid() != 0) GTEST_SKIP() << "only root makes files of others";
  ASSERT_EQ(chmod(folder_.path().c_str(), 01777), 0);
  const auto take_as_another = [this] {
    const pid_t child = fork();
    if (child == 0) {
      if (setuid(65534) != 0) _exit(2);
      const std::string message = TakeFails(path_);
      const bool stale = message.find("cannot remove the stale socket of root (uid 0), " + path_) != std::string::npos;
      const bool unknown = message.find("cannot tell whether a process listens at " + path_ +
                                        ", which belongs to root (uid 0)") != std::string::npos;
      _exit(stale ? 10 : unknown ? 11 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
  const shm::UniqueFd live = Foreign(path_);
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  EXPECT_EQ(take_as_another(), 11) << "a live one that it may not ask";
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(shutdown(live.get(), SHUT_RDWR), 0);
  EXPECT_EQ(take_as_another(), 10);
}

TEST_F(UnixSocketTest, SocketsHaveThePermissionsAskedFor) {
  for (const mode_t mode : {0600U, 0660U, 0666U}) {
    const auto listener = ListenUnix(path_, SOCK_STREAM, mode);
    ASSERT_TRUE(listener.ok()) << listener.status();
    struct stat file;
    ASSERT_EQ(stat(path_.c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777U, mode);
  }
}

TEST(SocketModeScopeTest, TheMaskIsAsBefore) {
  const mode_t before = umask(022);
  { const SocketModeScope scope(0660); }
  EXPECT_EQ(umask(before), 022U);
}

}  // namespace
}  // namespace attnd::server
