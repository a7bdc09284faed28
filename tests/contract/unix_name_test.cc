#include "contract/unix_name.h"

#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace attnd::contract {
namespace {

TEST(UnixNameTest, OnePathForEachSpelling) {
  EXPECT_EQ(UnixPath("unix:a/b"), "a/b");
  EXPECT_EQ(UnixPath("unix:/a/b"), "/a/b");
  EXPECT_EQ(UnixPath("unix:///a/b"), "/a/b");
  EXPECT_EQ(UnixPath("unix:////a"), "//a");
  EXPECT_EQ(UnixPath("unix:"), "");
  EXPECT_EQ(UnixPath("unix:a%20b.sock"), "a b.sock");
  EXPECT_EQ(UnixPath("unix:a b.sock"), "a b.sock");
  EXPECT_EQ(UnixPath("unix:%41%3f%23%25%2Fx"), "A?#%/x");
}

TEST(UnixNameTest, WhatHasNoOneMeaningIsNoName) {
  for (const char* bad : {"unix://rel.sock", "unix://tmp/x.sock", "unix://", "unix:a?b", "unix:a#b", "unix:a%",
                          "unix:a%2", "unix:a%zz", "unix:%00a", "unix:a%00", "unixhost:1", "127.0.0.1:1", ""}) {
    EXPECT_EQ(UnixPath(bad), std::nullopt) << bad;
  }
  EXPECT_TRUE(IsUnixName("unix://rel.sock"));
  EXPECT_FALSE(IsUnixName("unixhost:1"));
  EXPECT_FALSE(IsUnixName("unix-abstract:1"));
}

TEST(UnixNameTest, ASpellingThatIsReadAsThePath) {
  EXPECT_EQ(UnixName("/run/attnd.sock"), "unix:///run/attnd.sock");
  EXPECT_EQ(UnixName("a b"), "unix:a%20b");
  for (const char* path : {"a", "/a", "//a", "a b", "a%20b", "a?b#c", "a:1", "\xc3\xa4", "a\x01"}) {
    EXPECT_EQ(UnixPath(UnixName(path)), path) << path;
  }
}

}  // namespace
}  // namespace attnd::contract
