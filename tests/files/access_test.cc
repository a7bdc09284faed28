// As another user where the test runs as root, whom modes do not stop.

#include "files/access.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "files/byte_source.h"

namespace attnd::files {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uid_t kOther = 65532;

class AccessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    base_ = ::testing::TempDir() + "access_test-XXXXXX";
    ASSERT_NE(mkdtemp(base_.data()), nullptr);
    chmod(base_.c_str(), 0755);
    fs::create_directories(base_ + "/folder/deeper");
    std::ofstream(base_ + "/file") << "text";
    std::ofstream(base_ + "/folder/deeper/file") << "text";
  }
  void TearDown() override {
    BeMyself();
    chmod((base_ + "/folder").c_str(), 0755);
    fs::remove_all(base_);
  }

  // From here on the process is not root.
  void BeAnother() {
    if (geteuid() != 0) return;
    was_root_ = true;
    ASSERT_EQ(setegid(kOther), 0);
    ASSERT_EQ(seteuid(kOther), 0);
  }
  void BeMyself() {
    if (!was_root_) return;
    ASSERT_EQ(seteuid(0), 0);
    ASSERT_EQ(setegid(0), 0);
  }

  // What opening says, as another user.
  std::string Opening(const std::string& path) {
    BeAnother();
    const auto source = OpenFile(base_ + "/" + path);
    BeMyself();
    if (source.ok()) return "opened";
    EXPECT_EQ(source.status().code(), absl::StatusCode::kPermissionDenied) << source.status();
    return std::string(source.status().message());
  }

  std::string base_;
  bool was_root_ = false;
};

TEST_F(AccessTest, SaysWhoseAFileIsItsModeAndWhoAsks) {
  chmod((base_ + "/file").c_str(), 0200);
  const bool root = geteuid() == 0;
  const std::string said = Opening("file");
  EXPECT_THAT(said, HasSubstr("file: Permission denied: it belongs to uid " + std::to_string(getuid())));
  EXPECT_THAT(said,
              HasSubstr("with mode 0200, and this process runs as uid " + std::to_string(root ? kOther : getuid())));
  EXPECT_THAT(said, HasSubstr("chmod a+r"));
  EXPECT_THAT(said, Not(HasSubstr("--user"))) << "its owner is root, or this user";
  chmod((base_ + "/file").c_str(), 0644);
  EXPECT_EQ(Opening("file"), "opened");
}

TEST_F(AccessTest, NamesTheFolderOnTheWay) {
  chmod((base_ + "/folder").c_str(), 0600);
  EXPECT_THAT(Opening("folder/deeper/file"),
              HasSubstr("folder/deeper/file: Permission denied: " + base_ + "/folder belongs to uid"));
}

TEST_F(AccessTest, ProposesTheOwnerUnlessThatIsRoot) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  chmod((base_ + "/file").c_str(), 0600);
  ASSERT_EQ(chown((base_ + "/file").c_str(), 1234, 567), 0);
  EXPECT_THAT(Opening("file"), HasSubstr("chown it, or run as its owner (docker run --user 1234:567)"));
}

TEST_F(AccessTest, GroupsCount) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  chmod((base_ + "/file").c_str(), 0604);
  ASSERT_EQ(chown((base_ + "/file").c_str(), 0, kOther), 0);
  EXPECT_THAT(Opening("file"), HasSubstr("chmod a+r")) << "a member of its group is none of the others";
}

TEST_F(AccessTest, WhatTheModeAllowsIsDeniedElsewhere) {
  const absl::Status status = ExplainedOpenError(EACCES, AT_FDCWD, base_ + "/file", "shown");
  EXPECT_THAT(std::string(status.message()), HasSubstr("shown: Permission denied: it belongs"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("look for an access control list, SELinux or AppArmor"));
}

TEST_F(AccessTest, LinksToNothing) {
  fs::create_symlink("nowhere", base_ + "/link");
  EXPECT_EQ(OpenFile(base_ + "/link").status(),
            absl::InvalidArgumentError(base_ + "/link: a link to what is not there"));
  EXPECT_EQ(OpenFile(base_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace attnd::files
