#include "model/names.h"

#include <gtest/gtest.h>

#include <string>

namespace attnd::model {
namespace {

using std::string_literals::operator""s;

TEST(NamesTest, ModelNames) {
  for (const std::string& name : {"a"s, "t5-tiny"s, "t5_v1.1"s, "-"s, "0"s, std::string(128, 'x'), "google/t5-v1_1"s,
                                  "a/b"s, std::string(64, 'x') + "/" + std::string(63, 'y')}) {
    EXPECT_TRUE(CheckModelName(name).ok()) << name;
  }
  for (const std::string& name : {""s,
                                  "."s,
                                  ".."s,
                                  ".hidden"s,
                                  "a/b/c"s,
                                  "/a"s,
                                  "a/"s,
                                  "a//b"s,
                                  "/"s,
                                  "a/.b"s,
                                  "a/.."s,
                                  "../a"s,
                                  std::string(64, 'x') + "/" + std::string(64, 'y'),
                                  "a\0b"s,
                                  "a b"s,
                                  "a\n"s,
                                  "é"s,
                                  "a:b"s,
                                  "a\\b"s,
                                  "a%2e"s,
                                  std::string(129, 'x')}) {
    EXPECT_EQ(CheckModelName(name).code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(NamesTest, TableNames) {
  for (const char* name : {"decoder", "encoder", "decoder.0", "encoder.11", "decoder.9999"}) {
    EXPECT_TRUE(CheckTableName(name).ok()) << name;
  }
  for (const char* name : {"", "Decoder", "decoder.", "decoder.-1", "decoder.01", "decoder.1x", "decoder.1.2",
                           "decoder.10000", "cross", "cross.1", ".1"}) {
    EXPECT_FALSE(CheckTableName(name).ok()) << name;
  }
  EXPECT_EQ(SharedTableName("decoder.3"), "decoder");
  EXPECT_EQ(SharedTableName("decoder"), "");
}

TEST(NamesTest, PathsAreNormalizedAndConfined) {
  EXPECT_EQ(NormalizePath("a").value(), "a");
  EXPECT_EQ(NormalizePath("./a//b/./c/").value(), "a/b/c");
  EXPECT_EQ(NormalizePath("./").value(), ".");
  EXPECT_EQ(NormalizePath("a..b/...").value(), "a..b/...");
  for (const std::string& path : {"/a"s, "/"s, ".."s, "a/.."s, "a/../b"s, "../a"s, "a/b/../../.."s}) {
    EXPECT_EQ(NormalizePath(path).status().code(), absl::StatusCode::kPermissionDenied) << path;
  }
  for (const std::string& path : {""s, "a\0b"s, "a\0/../../etc"s}) {
    EXPECT_EQ(NormalizePath(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST(NamesTest, Stems) {
  EXPECT_EQ(Stem("a/b/t5.gguf"), "t5");
  EXPECT_EQ(Stem("t5.json"), "t5");
  EXPECT_EQ(Stem("folder/t5-v1.1"), "t5-v1.1");
  EXPECT_EQ(Stem(".gguf"), "");
}

TEST(NamesTest, FurtherShards) {
  EXPECT_TRUE(IsFurtherShard("a/t5-00002-of-00003.gguf"));
  for (const char* path : {"t5-00001-of-00003.gguf", "t5-00002-of-00003.json", "t5.gguf", "t5-2-of-3.gguf", ""}) {
    EXPECT_FALSE(IsFurtherShard(path)) << path;
  }
}

TEST(NamesTest, QuotesWhateverItIsGiven) {
  EXPECT_EQ(Quoted("a\0\n\xff"s + "z"), "\"a\\x00\\n\\xffz\"");
  EXPECT_LT(Quoted(std::string(100000, '\xff')).size(), 1000U);
}

}  // namespace
}  // namespace attnd::model
