#include "model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/content_hash.h"

namespace attnd::model {
namespace {

using ::testing::HasSubstr;

bias::BiasTable Table(bias::Rule rule) {
  auto table = bias::BiasTable::Create(1, std::move(rule));
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

bias::BiasTable T5(float first = 1, std::int64_t max_distance = 5) {
  return Table(bias::T5Rule{4, max_distance, false, {first, 2, 3, 4}});
}

Model WithTables(const std::vector<std::string>& names) {
  ModelTables contents;
  for (const std::string& name : names) contents.tables.emplace(name, T5());
  std::string hash = ContentHash(HashesOf(contents.tables));
  return Model("m", 1, "upload", absl::UnixEpoch(), std::move(contents), std::move(hash));
}

TEST(ModelTest, FindsTablesByName) {
  struct Case {
    std::vector<std::string> tables;
    std::string name;
    std::string found;  // empty: NOT_FOUND
  };
  const Case cases[] = {
      {{"decoder", "encoder"}, "", "decoder"},
      {{"decoder", "encoder"}, "decoder", "decoder"},
      {{"decoder", "encoder"}, "encoder", "encoder"},
      {{"decoder", "encoder"}, "decoder.0", "decoder"},
      {{"decoder", "encoder"}, "decoder.11", "decoder"},
      {{"decoder", "encoder"}, "encoder.3", "encoder"},
      {{"decoder", "encoder"}, "decoder.x", ""},
      {{"decoder", "encoder"}, "decoder.", ""},
      {{"decoder", "encoder"}, "cross", ""},
      {{"decoder.0", "decoder.1"}, "", "decoder.0"},
      {{"decoder.0", "decoder.1"}, "decoder.1", "decoder.1"},
      {{"decoder.0", "decoder.1"}, "decoder.2", ""},
      {{"decoder.0", "decoder.1"}, "decoder", ""},
      {{"decoder", "decoder.1"}, "decoder.1", "decoder.1"},
      {{"encoder"}, "", "encoder"},
      {{"encoder"}, "decoder", ""},
      {{"encoder.0", "encoder.1"}, "", ""},
  };
  for (const Case& c : cases) {
    const Model model = WithTables(c.tables);
    const auto found = model.FindTable(c.name);
    if (c.found.empty()) {
      EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound) << c.name;
      EXPECT_THAT(std::string(found.status().message()), HasSubstr(c.tables.front())) << "lists what there is";
      continue;
    }
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->name, c.found);
    EXPECT_EQ(found->table, &model.contents().tables.at(c.found));
  }
}

TEST(ContentHashTest, IsTheSha256OfTheDocumentedBytes) {
  // printf '' | sha256sum
  EXPECT_EQ(ContentHash({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  // The book's shape: python3 -c "import hashlib,struct; sha=hashlib.sha256; print(sha(struct.pack('<q7s', 7,
  // b'decoder')
  //   + sha(struct.pack('<qqqqqq4f', 1, 0, 4, 5, 0, 4, 1, 2, 3, 4)).digest()).hexdigest())"
  EXPECT_EQ(ContentHash(HashesOf({{"decoder", T5()}})),
            "5dcb032e4be944fba2fc6b192caa17eaa064bdc7ada38bfa0231cdcae21b2554");
}

TEST(ContentHashTest, DiffersWithEverythingThatMatters) {
  const std::vector<std::map<std::string, bias::BiasTable>> models = {
      {{"decoder", T5()}},
      {{"encoder", T5()}},
      {{"decoder", T5(1.5F)}},
      {{"decoder", T5(1, 6)}},
      {{"decoder", Table(bias::T5Rule{4, 5, true, {1, 2, 3, 4}})}},
      {{"decoder", T5()}, {"encoder", T5()}},
      {{"decoder", Table(bias::AlibiRule{false, {1}})}},
      {{"decoder", Table(bias::AlibiRule{true, {1}})}},
      {{"decoder", Table(bias::PerOffsetRule{0, {1}})}},
      {{"decoder", Table(bias::PerOffsetRule{1, {1}})}},
      {{"decoder", Table(bias::PerOffsetRule{0, {1, 1}})}},
  };
  for (std::size_t i = 0; i < models.size(); ++i) {
    const std::string hash = ContentHash(HashesOf(models[i]));
    EXPECT_EQ(ContentHash(HashesOf(models[i])), hash);
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(ContentHash(HashesOf(models[j])), hash) << i << " " << j;
  }
}

}  // namespace
}  // namespace attnd::model
