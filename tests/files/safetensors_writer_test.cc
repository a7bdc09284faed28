#include "files/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "files/safetensors.h"

namespace attnd::files {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SafetensorsWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path() const { return folder_ / "out.safetensors"; }
  std::size_t FilesInFolder() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  TensorToWrite Floats(std::string name, std::vector<std::int64_t> shape) const {
    return {std::move(name), "F32", std::move(shape),
            absl::MakeConstSpan(reinterpret_cast<const std::byte*>(floats_), 8)};
  }

  const float floats_[2] = {0.5F, -3.0F};
  std::filesystem::path folder_;
};

TEST_F(SafetensorsWriterTest, WhatIsWrittenIsReadBack) {
  const TensorToWrite tensors[] = {Floats("o", {1, 2}), {"n", "U8", {3}, Floats("", {}).bytes.subspan(0, 3)}};
  const auto written = WriteSafetensors(Path(), tensors, {{"quote \" and é", "line\nbreak"}});
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(FilesInFolder(), 1U);

  auto source = OpenFile(Path());
  ASSERT_TRUE(source.ok()) << source.status();
  const auto file = SafetensorsFile::Open(*std::move(source));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("quote \" and é"), "line\nbreak");
  EXPECT_EQ(file->Find("o")->offset % 8, 0);
  EXPECT_EQ(file->Find("n")->size, 3);
  const auto floats = file->ReadFloats(*file->Find("o"));
  ASSERT_TRUE(floats.ok()) << floats.status();
  EXPECT_THAT(*floats, ElementsAre(0.5F, -3.0F));
}

TEST_F(SafetensorsWriterTest, RefusesWhatTheFormatCannotHold) {
  struct Case {
    std::vector<TensorToWrite> tensors;
    std::string says;
  };
  TensorToWrite unknown = Floats("o", {2});
  unknown.dtype = "F31";
  const Case cases[] = {
      {{Floats("o", {3})}, "expected 12 for its shape, got 8"},
      {{Floats("o", {-1, 2})}, "negative"},
      {{Floats("o", {1LL << 32, 1LL << 32})}, "too large"},
      {{Floats("", {2})}, "empty or reserved"},
      {{Floats("__metadata__", {2})}, "empty or reserved"},
      {{Floats("o", {2}), Floats("o", {2})}, "given twice"},
      {{Floats("\xff", {2})}, "UTF-8"},
      {{unknown}, "F31"},
  };
  for (const Case& c : cases) {
    const absl::Status status = WriteSafetensors(Path(), c.tensors, {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
    EXPECT_EQ(FilesInFolder(), 0U);
  }
}

TEST_F(SafetensorsWriterTest, AFailureLeavesTheOldFileAndNoOther) {
  std::filesystem::create_directory(Path());  // a folder cannot be replaced by a file
  EXPECT_FALSE(WriteSafetensors(Path(), {Floats("o", {2})}, {}).ok());
  EXPECT_TRUE(std::filesystem::is_directory(Path()));
  EXPECT_EQ(FilesInFolder(), 1U);
  EXPECT_EQ(WriteSafetensors(folder_ / "none" / "o", {Floats("o", {2})}, {}).code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsWriterTest, ReplacesAnExistingFile) {
  std::ofstream(Path()) << "old";
  ASSERT_TRUE(WriteSafetensors(Path(), {Floats("o", {2})}, {}).ok());
  EXPECT_GT(std::filesystem::file_size(Path()), 16U);
  EXPECT_EQ(FilesInFolder(), 1U);
}

}  // namespace
}  // namespace attnd::files
