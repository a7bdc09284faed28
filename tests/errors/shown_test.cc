#include "errors/shown.h"

#include <string>

#include "gtest/gtest.h"

namespace attnd::errors {
namespace {

TEST(ShownTest, PrintableTextStaysAndTheRestIsEscaped) {
  const struct {
    std::string text;
    std::string shown;
  } kCases[] = {
      {"", ""},
      {"a \"b\" \\n", "a \"b\" \\n"},
      {"Größe € 𝄞", "Größe € 𝄞"},
      {std::string("a\0b\n\x7f", 5), "a\\x00b\\x0a\\x7f"},
      {"\xc3", "\\xc3"},                             // a character's beginning
      {"\xc3(", "\\xc3("},                           // and something else
      {"\x80\xbf", "\\x80\\xbf"},                    // its end alone
      {"\xc0\xaf", "\\xc0\\xaf"},                    // longer than needed
      {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},           //
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"},           // a surrogate
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // beyond U+10FFFF
      {"\xf5", "\\xf5"},
      {"\xff", "\\xff"},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Shown(c.text, 1000), c.shown);
    EXPECT_EQ(Shown(c.shown, 1000), c.shown) << "twice is as once";
  }
}

// Whatever the length, the cut falls between characters, and the result is no longer than asked for.
TEST(ShownTest, IsCutBetweenCharacters) {
  const std::string text = "aé€𝄞\n" + std::string("é€𝄞\xff");
  const std::string whole = Shown(text, 1000);
  for (std::size_t max = 3; max < whole.size(); ++max) {
    const std::string cut = Shown(text, max);
    EXPECT_LE(cut.size(), max);
    EXPECT_GT(cut.size() + 5, max) << "no more is lost than a character and the dots";
    EXPECT_EQ(Utf8Prefix(cut), cut.size()) << cut;
    ASSERT_EQ(cut.substr(cut.size() - 3), "...");
    const std::string kept = cut.substr(0, cut.size() - 3);
    EXPECT_EQ(whole.substr(0, kept.size()), kept);
    const std::size_t escape = kept.rfind('\\');
    EXPECT_TRUE(escape == std::string::npos || kept.size() - escape >= 4) << "an escape is a character: " << kept;
  }
  EXPECT_EQ(Shown(text, whole.size()), whole);
}

TEST(ShownTest, CutAtCharacterKeepsWholeCharacters) {
  const std::string text = "é€𝄞x";
  const std::size_t kBorders[] = {0, 0, 2, 2, 2, 5, 5, 5, 5, 9, 10};
  for (std::size_t max = 0; max <= 10; ++max) EXPECT_EQ(CutAtCharacter(text, max).size(), kBorders[max]) << max;
  EXPECT_EQ(CutAtCharacter("\xff\xff", 1).size(), 1u);
}

}  // namespace
}  // namespace attnd::errors
