#include "files/output_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "temp_folder.h"
#include "wait.h"

namespace attnd::files {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class OutputFileTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  static absl::Status Write(const std::string& path, const std::string& text) {
    const Bytes bytes(reinterpret_cast<const std::byte*>(text.data()), text.size());
    return WriteFile(path, {bytes.subspan(0, bytes.size() / 2), bytes.subspan(bytes.size() / 2)});
  }

  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static struct stat Stat(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info;
  }

  std::size_t Entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_.path()), {}));
  }

  const test::TempFolder folder_;
};

TEST_F(OutputFileTest, ANewFileAndAReplacedOne) {
  const std::string path = Path("out");
  ASSERT_TRUE(Write(path, "first").ok());
  EXPECT_EQ(Contents(path), "first");
  chmod(path.c_str(), 0640);
  const struct stat old = Stat(path);
  ASSERT_TRUE(Write(path, "second, longer").ok());
  EXPECT_EQ(Contents(path), "second, longer");
  EXPECT_EQ(Stat(path).st_mode, old.st_mode);
  EXPECT_NE(Stat(path).st_ino, old.st_ino) << "replaced, not overwritten: nobody sees half of it";
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(OutputFileTest, OwnerIsKept) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may give files away";
  const std::string path = Path("out");
  ASSERT_TRUE(Write(path, "old").ok());
  ASSERT_EQ(chown(path.c_str(), 12345, 54321), 0);
  ASSERT_TRUE(Write(path, "new").ok());
  EXPECT_EQ(Stat(path).st_uid, 12345U);
  EXPECT_EQ(Stat(path).st_gid, 54321U);
}

TEST_F(OutputFileTest, LinksStayLinks) {
  ASSERT_TRUE(Write(Path("file"), "old").ok());
  fs::create_symlink("file", Path("link"));
  fs::create_symlink("not_yet", Path("dangling"));
  for (const std::string name : {"link", "dangling"}) {
    ASSERT_TRUE(Write(Path(name), "new").ok()) << name;
    EXPECT_TRUE(fs::is_symlink(Path(name))) << name;
  }
  EXPECT_EQ(Contents(Path("file")), "new");
  EXPECT_EQ(Contents(Path("not_yet")), "new");
  EXPECT_EQ(Entries(), 4U);
}

TEST_F(OutputFileTest, AFileOfTwoNamesKeepsBoth) {
  ASSERT_TRUE(Write(Path("one"), "a longer old text").ok());
  fs::create_hard_link(Path("one"), Path("two"));
  ASSERT_TRUE(Write(Path("one"), "new").ok());
  EXPECT_EQ(Contents(Path("two")), "new");
}

TEST_F(OutputFileTest, FifosAreWrittenTo) {
  const std::string path = Path("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] { got = Contents(path); });
  const std::string text(300000, 'x');
  EXPECT_TRUE(Write(path, text).ok());
  reader.join();
  EXPECT_EQ(got, text);
  EXPECT_TRUE(fs::is_fifo(path));
}

TEST_F(OutputFileTest, DevicesAreWrittenTo) {
  // Of its own: what replaced one would not replace the machine's. Who may not make them may not replace any.
  const auto device = [&](const std::string& name, unsigned minor) {
    const std::string path = Path(name);
    const bool made = mknod(path.c_str(), S_IFCHR | 0600, makedev(1, minor)) == 0;
    const int opened = made ? open(path.c_str(), O_WRONLY) : -1;
    if (opened >= 0) close(opened);
    return opened >= 0 ? path : "/dev/" + name;
  };
  const std::string null = device("null", 3);
  const std::string full = device("full", 7);
  EXPECT_TRUE(Write(null, "x").ok());
  EXPECT_TRUE(S_ISCHR(Stat(null).st_mode));
  const absl::Status status = Write(full, "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write " + full + ": No space left"));
  EXPECT_TRUE(S_ISCHR(Stat(full).st_mode));
}

TEST_F(OutputFileTest, WhatCannotBeWrittenIsSaidAndLeft) {
  fs::create_directory(Path("folder"));
  EXPECT_THAT(std::string(Write(Path("folder"), "x").message()), HasSubstr("it is a folder"));
  EXPECT_EQ(Write(Path("none/out"), "x").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Write("", "x").code(), absl::StatusCode::kNotFound);
  fs::create_symlink("loop", Path("loop"));
  EXPECT_FALSE(Write(Path("loop"), "x").ok());
  EXPECT_EQ(Entries(), 2U);
}

// As another user where the test runs as root, whom modes do not stop.
class AsAnother {
 public:
  AsAnother() : root_(geteuid() == 0) {
    if (root_ && (setegid(kId) != 0 || seteuid(kId) != 0)) ADD_FAILURE() << "stays root";
  }
  ~AsAnother() {
    if (root_ && (seteuid(0) != 0 || setegid(0) != 0)) ADD_FAILURE() << "is not root again";
  }
  static constexpr uid_t kId = 65532;

 private:
  const bool root_;
};

TEST_F(OutputFileTest, AFolderThatMayNotBeWrittenToAndAFileThatMay) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const std::string path = Path("out");
  chmod(folder_.path().c_str(), 0755);
  ASSERT_TRUE(Write(path, "a longer old text").ok());
  ASSERT_EQ(chown(path.c_str(), AsAnother::kId, AsAnother::kId), 0);
  const struct stat old = Stat(path);
  {
    const AsAnother another;
    for (const std::string text : {"new", "a new text that is longer than the old one"}) {
      const absl::Status written = Write(path, text);
      EXPECT_TRUE(written.ok()) << written;
      EXPECT_EQ(Contents(path), text);
    }
    EXPECT_EQ(Write(Path("fresh"), "x").code(), absl::StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(Stat(path).st_ino, old.st_ino) << "overwritten in place";
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(OutputFileTest, AWriteProtectedFileStays) {
  const std::string path = Path("out");
  ASSERT_TRUE(Write(path, "old").ok());
  chmod(path.c_str(), 0444);
  chmod(folder_.path().c_str(), 0777);
  {
    const AsAnother another;
    EXPECT_EQ(Write(path, "new").code(), absl::StatusCode::kPermissionDenied);
  }
  EXPECT_EQ(Contents(path), "old");
  EXPECT_EQ(Entries(), 1U);
}

TEST_F(OutputFileTest, EveryWayOutClosesWhatItOpens) {
  ASSERT_TRUE(Write(Path("file"), "old").ok());
  ASSERT_TRUE(Write(Path("one"), "old").ok());
  fs::create_hard_link(Path("one"), Path("two"));
  fs::create_directory(Path("folder"));
  const std::size_t entries = Entries();
  const std::size_t descriptors = test::OpenDescriptors();
  for (const std::string name : {"file", "one", "folder", "none/out", "/dev/null", "/dev/full"}) {
    for (const std::size_t size : {0U, 1U, 2U, 100000U}) {
      const std::string path = name[0] == '/' ? name : Path(name);
      const bool written = Write(path, std::string(size, 'x')).ok();
      EXPECT_EQ(written, name == "file" || name == "one" || name == "/dev/null" || (size == 0 && name == "/dev/full"))
          << name << " " << size;
      if (written && name[0] != '/') {
        EXPECT_EQ(Contents(path), std::string(size, 'x')) << name;
      }
      EXPECT_EQ(test::OpenDescriptors(), descriptors) << name;
      EXPECT_EQ(Entries(), entries) << name;
    }
  }
}

// As a full disk would: the limit on a file's size. The old file stays, and no part of the new one.
TEST_F(OutputFileTest, NoSpaceLeavesTheOldFileAndNoOther) {
  std::signal(SIGXFSZ, SIG_IGN);
  for (const bool two_names : {false, true}) {
    const std::string path = Path(two_names ? "two" : "one");
    ASSERT_TRUE(Write(path, "old").ok());
    if (two_names) fs::create_hard_link(path, Path("other"));
    const std::size_t entries = Entries();
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    const struct rlimit little = {1000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &little);
    const absl::Status status = Write(path, std::string(5000, 'x'));
    const absl::Status fresh = Write(Path("fresh"), std::string(5000, 'x'));
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(fresh.code(), absl::StatusCode::kResourceExhausted) << fresh;
    EXPECT_EQ(Contents(path), "old") << two_names;
    EXPECT_EQ(Entries(), entries);
  }
}

}  // namespace
}  // namespace attnd::files
