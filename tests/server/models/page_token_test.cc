#include "server/models/page_token.h"

#include <string>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(PageTokenTest, GivesTheNameBack) {
  for (const char* name : {"a", "book", "t5-tiny", "x.y_z-0"}) {
    EXPECT_EQ(*ParsePageToken(MakePageToken(name)), name);
    EXPECT_EQ(MakePageToken(name).find(name), std::string::npos) << "a token is opaque";
  }
  EXPECT_EQ(*ParsePageToken(""), "");
}

TEST(PageTokenTest, RefusesWhatItNeverMade) {
  const std::string token = MakePageToken("book");
  for (const std::string& bad : {std::string("book"), std::string("!"), token + "*", token.substr(1), MakePageToken(""),
                                 token + "=", std::string(1, '\0'), " " + token}) {
    EXPECT_EQ(ParsePageToken(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace attnd::server
