#include "client/attnctl/suggest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/attnctl/commands.h"

namespace attnd::ctl {
namespace {

TEST(Suggest, DistanceCountsEditsAndSwaps) {
  const struct {
    const char *a, *b;
    std::size_t distance;
  } kCases[] = {
      {"", "", 0},         {"abc", "", 3},   {"", "abc", 3},           {"abc", "abc", 0},
      {"abc", "abd", 1},   {"abc", "ab", 1}, {"ab", "abc", 1},         {"ab", "ba", 1},
      {"book", "boko", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3}, {"queries", "quries", 1},
      {"a_b", "a-b", 1},
  };
  for (const auto& c : kCases) EXPECT_EQ(Distance(c.a, c.b), c.distance) << c.a << " " << c.b;
}

TEST(Suggest, NearestIsNearOrNone) {
  const std::vector<std::string> flags = {"key_lengths", "key_mask", "mask", "keys", "key_start", "key_starts"};
  EXPECT_EQ(Nearest("key_lenghts", flags), "key_lengths");
  EXPECT_EQ(Nearest("key-mask", flags), "key_mask");
  EXPECT_EQ(Nearest("MASK", flags), "mask");
  EXPECT_EQ(Nearest("key_star", flags), "key_start");
  EXPECT_EQ(Nearest("dance", flags), "");
  EXPECT_EQ(Nearest("", flags), "");
  EXPECT_EQ(Nearest("k", flags), "");
  EXPECT_EQ(Nearest(std::string(100000, 'k'), flags), "");
  EXPECT_EQ(Nearest("mask", {}), "");
}

// Every way to mistype a name by one letter: one left out, doubled, swapped with the next, or replaced.
std::vector<std::string> OneLetterOff(const std::string& name) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < name.size(); ++i) {
    words.push_back(name.substr(0, i) + name.substr(i + 1));
    words.push_back(name.substr(0, i) + name[i] + name.substr(i));
    words.push_back(name.substr(0, i) + '~' + name.substr(i + 1));
    if (i + 1 < name.size()) words.push_back(name.substr(0, i) + name[i + 1] + name[i] + name.substr(i + 2));
  }
  return words;
}

TEST(Suggest, EveryFlagIsFoundFromOneLetterOff) {
  const Flags flags;
  for (const Command& command : Commands()) {
    std::vector<std::string> names;
    for (const Flag* flag : flags.common) names.push_back(flag->name());
    names.insert(names.end(), command.flags.begin(), command.flags.end());
    for (const std::string& name : names) {
      for (const std::string& word : OneLetterOff(name)) {
        const std::string nearest = Nearest(word, names);
        // Another name may be as near as the one that was meant.
        EXPECT_TRUE(nearest == name || (!nearest.empty() && Distance(word, nearest) <= 1))
            << command.name << ": " << word << " for " << name << ", got " << nearest;
      }
    }
  }
}

}  // namespace
}  // namespace attnd::ctl
