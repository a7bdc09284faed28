#include "model/folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace attnd::model {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    base_ = fs::path(::testing::TempDir()) / ("folder_test_" + name);
    fs::remove_all(base_);
    fs::create_directories(base_ / "root" / "sub");
    fs::create_directories(base_ / "root-beside");
    std::ofstream(base_ / "root" / "file") << "inside";
    std::ofstream(base_ / "root" / "sub" / "file") << "deeper";
    std::ofstream(base_ / "root-beside" / "file") << "outside";
  }
  void TearDown() override { fs::remove_all(base_); }

  Folder Root() const {
    auto root = Folder::OpenRoot(base_ / "root");
    EXPECT_TRUE(root.ok()) << root.status();
    return *std::move(root);
  }

  fs::path base_;
};

TEST_F(FolderTest, OpensFilesAndFoldersBelowTheRoot) {
  const Folder root = Root();
  EXPECT_TRUE(root.OpenFile("file").ok());
  EXPECT_TRUE(root.OpenFile("sub/file").ok());
  auto sub = root.Open("sub");
  ASSERT_TRUE(sub.ok()) << sub.status();
  EXPECT_TRUE(std::get<Folder>(*sub).OpenFile("file").ok());
  EXPECT_EQ(root.OpenFile("sub").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(root.OpenFile("none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(root.OpenFile("file/none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(FolderTest, LinksInsideTheRootAreFollowed) {
  fs::create_symlink("../file", base_ / "root" / "sub" / "up");
  fs::create_symlink(base_ / "root" / "sub", base_ / "root" / "absolute");
  const Folder root = Root();
  EXPECT_TRUE(root.OpenFile("sub/up").ok());
  EXPECT_TRUE(root.OpenFile("absolute/file").ok());
  // Also from a folder below: the root confines, not the folder.
  auto sub = root.Open("sub");
  ASSERT_TRUE(sub.ok()) << sub.status();
  EXPECT_TRUE(std::get<Folder>(*sub).OpenFile("up").ok());
}

TEST_F(FolderTest, LinksOutOfTheRootAreRefused) {
  fs::create_symlink("../root-beside/file", base_ / "root" / "out");  // a name that begins like the root's
  fs::create_symlink("../root-beside", base_ / "root" / "folder-out");
  fs::create_symlink("/etc/passwd", base_ / "root" / "passwd");
  fs::create_symlink("../..", base_ / "root" / "sub" / "parent");
  fs::create_symlink("..", base_ / "root" / "above");
  const Folder root = Root();
  for (const char* path :
       {"out", "folder-out", "folder-out/file", "passwd", "sub/parent", "above", "sub/../../root-beside"}) {
    const auto entry = root.Open(path);
    EXPECT_EQ(entry.status().code(), absl::StatusCode::kPermissionDenied) << path;
    EXPECT_THAT(std::string(entry.status().message()), Not(HasSubstr(base_.string())));
  }
}

TEST_F(FolderTest, ALinkThatGoesInCirclesIsRefused) {
  fs::create_symlink("loop", base_ / "root" / "loop");
  EXPECT_EQ(Root().Open("loop").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FolderTest, FifosAndDevicesAreRefusedWithoutOpeningThem) {
  ASSERT_EQ(mkfifo((base_ / "root" / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(Root().Open("fifo").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FolderTest, KeepsTheFolderItOpened) {
  const Folder root = Root();
  auto sub = root.Open("sub");
  ASSERT_TRUE(sub.ok()) << sub.status();
  fs::rename(base_ / "root" / "sub", base_ / "root" / "renamed");
  fs::create_symlink("../root-beside", base_ / "root" / "sub");
  const auto file = std::get<Folder>(*sub).OpenFile("file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 6);  // "deeper"
}

TEST_F(FolderTest, AFolderMovedOutOfTheRootOpensNothing) {
  const Folder root = Root();
  auto sub = root.Open("sub");
  ASSERT_TRUE(sub.ok()) << sub.status();
  fs::rename(base_ / "root" / "sub", base_ / "moved");
  EXPECT_EQ(std::get<Folder>(*sub).OpenFile("file").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(FolderTest, ListsNamesInOrderWithoutHiddenOnes) {
  std::ofstream(base_ / "root" / ".hidden") << "";
  std::ofstream(base_ / "root" / "a") << "";
  const Folder root = Root();
  for (int again = 0; again < 2; ++again) {
    const auto names = root.List();
    ASSERT_TRUE(names.ok()) << names.status();
    EXPECT_THAT(*names, ElementsAre("a", "file", "sub"));
  }
}

TEST_F(FolderTest, TheRootItselfMayBeALink) {
  fs::create_symlink("root", base_ / "link");
  const auto root = Folder::OpenRoot(base_ / "link");
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_TRUE(root->OpenFile("file").ok());
  EXPECT_EQ(Folder::OpenRoot(base_ / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Folder::OpenRoot(base_ / "root" / "file").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace attnd::model
