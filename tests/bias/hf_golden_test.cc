// Buckets against Hugging Face's own function (tests/golden).
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "bias/bias_table.h"
#include "bias/t5_buckets.h"
#include "nlohmann/json.hpp"

namespace attnd::bias {
namespace {

nlohmann::json Golden(const std::string& name) {
  std::ifstream file(std::string(ATTND_GOLDEN_DIR) + "/" + name);
  EXPECT_TRUE(file.good()) << name;
  return nlohmann::json::parse(file);
}

TEST(HuggingFaceGoldenTest, EveryOffsetOfEveryReferenceConfiguration) {
  const nlohmann::json reference = Golden("bucket_reference.json");
  ASSERT_EQ(reference["configs"].size(), 20U);
  for (const auto& config : reference["configs"]) {
    const auto num_buckets = config["num_buckets"].get<std::int64_t>();
    const auto max_distance = config["max_distance"].get<std::int64_t>();
    const bool bidirectional = config["bidirectional"].get<bool>();
    const auto table = BiasTable::Create(
        1, T5Rule{num_buckets, max_distance, bidirectional, std::vector<float>(static_cast<std::size_t>(num_buckets))});
    ASSERT_TRUE(table.ok()) << table.status();
    std::int64_t offset = config["offset_min"].get<std::int64_t>();
    for (const auto& bucket : config["hf"]) {
      ASSERT_EQ(table->Bucket(offset), bucket.get<std::int64_t>())
          << num_buckets << "/" << max_distance << " bidirectional " << bidirectional << " offset " << offset;
      ++offset;
    }
    ASSERT_EQ(offset, config["offset_max"].get<std::int64_t>() + 1);
  }
}

// tests/golden/make_bucket_edges.py: odd and even counts, exact powers, tiny and huge distances, and every
// configuration known whose buckets a correctly rounded logarithm would get wrong.
TEST(HuggingFaceGoldenTest, EdgesOfThousandsOfConfigurations) {
  const nlohmann::json edges = Golden("bucket_edges.json");
  ASSERT_GT(edges["configs"].size(), 2000U);
  for (const auto& config : edges["configs"]) {
    const auto buckets = config[0].get<std::int64_t>();
    const auto max_distance = config[1].get<std::int64_t>();
    const auto logarithmic = config[2].get<std::vector<std::int64_t>>();
    const std::vector<std::int64_t> first = FirstDistances(buckets, max_distance);
    const std::vector<std::int64_t> tail(first.end() - static_cast<std::ptrdiff_t>(logarithmic.size()), first.end());
    ASSERT_EQ(tail, logarithmic) << buckets << "/" << max_distance;
  }
}

}  // namespace
}  // namespace attnd::bias
