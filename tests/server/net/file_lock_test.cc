// This binary's own flock() stands before the system's, so that a test can act between a file's open and its lock.
#include "server/net/file_lock.h"

#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temp_folder.h"

namespace {

std::function<void()> before_lock;  // runs once
std::deque<int> lock_errors;        // of the next locks

}  // namespace

extern "C" int flock(int fd, int operation) noexcept {
  if (auto act = std::exchange(before_lock, nullptr)) act();
  if (!lock_errors.empty()) {
    errno = lock_errors.front();
    lock_errors.pop_front();
    return -1;
  }
  return static_cast<int>(syscall(SYS_flock, fd, operation));
}

namespace attnd::server {
namespace {

using testing::HasSubstr;

class FileLockTest : public testing::Test {
 protected:
  const test::TempFolder folder_;
  const std::string path_ = folder_.path() + "/lock";
};

TEST_F(FileLockTest, OneAtATime) {
  {
    const absl::StatusOr<FileLock> first = FileLock::Take(path_);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(FileLock::Take(path_).status().code(), absl::StatusCode::kAlreadyExists);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(FileLock::Take(path_).ok());
}

TEST_F(FileLockTest, TheFileOfAProcessThatDiedIsNoObstacle) {
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FileLock::Take(path_);
    raise(SIGKILL);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(FileLock::Take(path_).ok());
}

// Each takes and leaves the lock over and over; a file stands for "somebody has it".
TEST_F(FileLockTest, TakenAndLeftByMany) {
  constexpr int kProcesses = 4;
  constexpr int kTimes = 500;
  const std::string inside = folder_.path() + "/inside";
  pid_t children[kProcesses];
  for (pid_t& child : children) {
    child = fork();
    if (child != 0) continue;
    for (int taken = 0; taken < kTimes;) {
      const absl::StatusOr<FileLock> lock = FileLock::Take(path_);
      if (!lock.ok()) continue;
      if (mkdir(inside.c_str(), 0700) != 0 || rmdir(inside.c_str()) != 0) _exit(1);
      ++taken;
    }
    _exit(0);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
}

// Between open and lock, the holder may remove the file that was opened, and another may make a new one. A lock of a
// file that is no longer there would keep nobody out.
TEST_F(FileLockTest, TheFileThatIsLockedIsTheOneThatIsThere) {
  std::optional<absl::StatusOr<FileLock>> holder(FileLock::Take(path_));
  before_lock = [&] { holder.reset(); };
  absl::StatusOr<FileLock> lock = FileLock::Take(path_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_EQ(FileLock::Take(path_).status().code(), absl::StatusCode::kAlreadyExists) << "it keeps others out";

  std::optional<absl::StatusOr<FileLock>> newer;
  before_lock = [&] {
    lock = absl::UnknownError("left");
    newer.emplace(FileLock::Take(path_));
  };
  EXPECT_EQ(FileLock::Take(path_).status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(newer.has_value() && newer->ok());
  EXPECT_TRUE(std::filesystem::exists(path_)) << "the newer one's";

  newer.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
  // A file of the same name in its place.
  before_lock = [&] {
    std::filesystem::remove(path_);
    std::ofstream(path_).flush();
  };
  const absl::StatusOr<FileLock> other = FileLock::Take(path_);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(FileLock::Take(path_).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(FileLockTest, SignalsAreNoErrorAndOthersAre) {
  lock_errors = {EINTR, EINTR, EINTR};
  {
    const absl::StatusOr<FileLock> lock = FileLock::Take(path_);
    EXPECT_TRUE(lock.ok()) << lock.status();
  }
  lock_errors = {EINTR, ENOLCK};
  const absl::Status status = FileLock::Take(path_).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot lock " + path_));
  EXPECT_TRUE(lock_errors.empty());
}

TEST_F(FileLockTest, AMovedLockIsTheOtherOnes) {
  std::optional<FileLock> moved_to;
  {
    absl::StatusOr<FileLock> lock = FileLock::Take(path_);
    ASSERT_TRUE(lock.ok());
    moved_to.emplace(*std::move(lock));
  }
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_EQ(FileLock::Take(path_).status().code(), absl::StatusCode::kAlreadyExists);
  moved_to.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(FileLockTest, NamesTheOwnerOfAnothersFile) {
  if (geteuid() != 0) GTEST_SKIP() << "only root makes files of others";
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::all);
  std::ofstream(path_).flush();
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setuid(65534) != 0) _exit(2);
    const absl::Status status = FileLock::Take(path_).status();
    _exit(status.code() == absl::StatusCode::kPermissionDenied &&
                  std::string(status.message()).find("belongs to root (uid 0)") != std::string::npos
              ? 0
              : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(FileLockTest, FollowsNoLink) {
  std::filesystem::create_symlink(folder_.path() + "/elsewhere", path_);
  EXPECT_FALSE(FileLock::Take(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/elsewhere"));
  EXPECT_THAT(std::string(FileLock::Take(folder_.path() + "/none/lock").status().message()), HasSubstr("No such file"));
}

}  // namespace
}  // namespace attnd::server
