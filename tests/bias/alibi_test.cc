#include "bias/alibi.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace attnd::bias {
namespace {

// The paper's own example: 8 heads have 1/2, 1/4, ..., 1/256.
TEST(PaperSlopes, EightHeads) {
  EXPECT_EQ(PaperSlopes(8),
            (std::vector<float>{0.5F, 0.25F, 0.125F, 0.0625F, 0.03125F, 0.015625F, 0.0078125F, 0.00390625F}));
}

TEST(PaperSlopes, OtherCountsTakeEverySecondOfTwiceThePower) {
  const std::vector<float> twelve = PaperSlopes(12), eight = PaperSlopes(8), sixteen = PaperSlopes(16);
  ASSERT_EQ(twelve.size(), 12U);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(twelve[i], eight[i]);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(twelve[8 + i], sixteen[2 * i]);
  EXPECT_EQ(PaperSlopes(1), std::vector<float>{0.00390625F});
}

// BLOOM raises a base that was rounded to float32 to powers up to the number of heads, so its error grows with that;
// MPT takes 1 / pow(2, x) of an x in float32 up to 8, half an ulp of which is 2^-22.
TEST(PaperSlopes, AreHuggingFaces) {
  std::ifstream file(std::string(ATTND_GOLDEN_DIR) + "/alibi/slopes.json");
  ASSERT_TRUE(file.good());
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden["slopes"].size(), 25U);
  constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
  for (const auto& row : golden["slopes"]) {
    const auto heads = row["heads"].get<std::int64_t>();
    const std::vector<float> slopes = PaperSlopes(heads);
    for (const auto& [name, tolerance] :
         {std::pair{"bloom", static_cast<double>(heads + 1) * kEpsilon}, std::pair{"mpt", 4 * kEpsilon}}) {
      const auto theirs = row[name].get<std::vector<double>>();
      ASSERT_EQ(theirs.size(), slopes.size()) << name << " " << heads;
      for (std::size_t i = 0; i < slopes.size(); ++i) {
        EXPECT_NEAR(static_cast<double>(slopes[i]) / theirs[i], 1, tolerance) << name << " " << heads << " head " << i;
      }
    }
  }
}

}  // namespace
}  // namespace attnd::bias
