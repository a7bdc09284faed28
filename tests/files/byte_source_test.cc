// Random access: the bytes asked for and no others, and no descriptor left, whatever fails.
#include "files/byte_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "temp_folder.h"
#include "wait.h"

namespace attnd::files {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr char kText[] = "0123456789";

class ByteSourceTest : public ::testing::Test {
 protected:
  ByteSourceTest() { std::ofstream(Path("file")) << kText; }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  const test::TempFolder folder_;
};

// Of a source with ten bytes.
void ExpectExactRanges(const ByteSource& source) {
  ASSERT_EQ(source.size(), 10);
  struct Range {
    std::int64_t offset;
    std::size_t count;
    bool inside;
  };
  for (const auto& [offset, count, inside] :
       {Range{0, 10, true}, Range{0, 11, false}, Range{3, 7, true}, Range{3, 8, false}, Range{9, 1, true},
        Range{9, 2, false}, Range{10, 0, true}, Range{10, 1, false}, Range{11, 0, false}, Range{-1, 1, false},
        Range{-1, 0, false}, Range{kMost, 1, false}, Range{-kMost - 1, 1, false}}) {
    std::string out(count, '-');
    const absl::Status read =
        source.ReadAt(offset, absl::MakeSpan(reinterpret_cast<std::byte*>(out.data()), out.size()));
    EXPECT_EQ(read.ok(), inside) << count << " from " << offset << ": " << read;
    if (inside) {
      EXPECT_EQ(out, std::string(kText).substr(static_cast<std::size_t>(offset), count));
    } else {
      EXPECT_EQ(read.code(), absl::StatusCode::kOutOfRange);
      EXPECT_EQ(out, std::string(count, '-')) << "nothing is written";
    }
  }
}

TEST_F(ByteSourceTest, RangesOfAFileAreExact) {
  const auto source = OpenFile(Path("file"));
  ASSERT_TRUE(source.ok()) << source.status();
  ExpectExactRanges(**source);
}

TEST_F(ByteSourceTest, RangesOfMemoryAreExact) {
  ExpectExactRanges(*OpenMemory({reinterpret_cast<const std::byte*>(kText), 10}));
}

TEST_F(ByteSourceTest, AFileThatShrinksIsDataLoss) {
  const auto source = OpenFile(Path("file"));
  ASSERT_TRUE(source.ok()) << source.status();
  std::filesystem::resize_file(Path("file"), 4);
  EXPECT_EQ((*source)->size(), 10) << "as it was opened";
  std::vector<std::byte> out(4);
  EXPECT_TRUE((*source)->ReadAt(0, absl::MakeSpan(out)).ok());
  for (const std::int64_t offset : {1, 4, 6}) {
    EXPECT_EQ((*source)->ReadAt(offset, absl::MakeSpan(out)).code(), absl::StatusCode::kDataLoss) << offset;
  }
}

TEST_F(ByteSourceTest, EveryWayOutClosesTheDescriptor) {
  std::filesystem::create_directory(Path("folder"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  const std::size_t before = test::OpenDescriptors();
  for (const char* name : {"file", "folder", "fifo", "none", "file/none"}) {
    EXPECT_EQ(OpenFile(Path(name)).ok(), std::string(name) == "file") << name;
    EXPECT_EQ(test::OpenDescriptors(), before) << name;
    const int descriptor = open(Path(name).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    EXPECT_EQ(OpenDescriptor(descriptor, name).ok(), std::string(name) == "file") << name;
    EXPECT_EQ(test::OpenDescriptors(), before) << name << ", opened by the caller";
  }
  {
    const auto open = OpenFile(Path("file"));
    EXPECT_EQ(test::OpenDescriptors(), before + 1);
  }
  EXPECT_EQ(test::OpenDescriptors(), before);
}

}  // namespace
}  // namespace attnd::files
