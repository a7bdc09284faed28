// ModelService as model.proto describes it, and calls that run while models come and go.

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

// A T5 table whose values are all `value`.
v1::Table ConstantTable(float value, std::int64_t heads = kHeads) {
  v1::Table table;
  table.set_heads(heads);
  table.mutable_t5()->set_num_buckets(4);
  table.mutable_t5()->set_max_distance(6);
  for (std::int64_t i = 0; i < 4 * heads; ++i) table.mutable_t5()->add_values(value * static_cast<float>(i));
  return table;
}

class ModelsTest : public testing::Test {
 protected:
  grpc::Status Upload(const std::string& model, const v1::Table& table, bool replace, v1::Model* loaded = nullptr) {
    grpc::ClientContext context;
    v1::UploadTableRequest request;
    request.set_model(model);
    *request.mutable_table() = table;
    request.set_replace(replace);
    v1::UploadTableResponse response;
    const grpc::Status status = server_.models().UploadTable(&context, request, &response);
    if (loaded != nullptr) *loaded = response.model();
    return status;
  }

  grpc::Status Unload(const std::string& model) {
    grpc::ClientContext context;
    v1::UnloadModelRequest request;
    request.set_name(model);
    v1::UnloadModelResponse response;
    return server_.models().UnloadModel(&context, request, &response);
  }

  grpc::Status Get(const std::string& model, bool include_values, v1::Model* found) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_name(model);
    request.set_include_values(include_values);
    v1::GetModelResponse response;
    const grpc::Status status = server_.models().GetModel(&context, request, &response);
    *found = response.model();
    return status;
  }

  grpc::Status List(std::int64_t page_size, const std::string& token, v1::ListModelsResponse* page) {
    grpc::ClientContext context;
    v1::ListModelsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    return server_.models().ListModels(&context, request, page);
  }

  grpc::Status Bias(const v1::GetBiasRequest& request, v1::GetBiasResponse* response) {
    grpc::ClientContext context;
    return server_.models().GetBias(&context, request, response);
  }

  TestServer server_;
};

TEST_F(ModelsTest, UploadedTableComesBackAsSent) {
  v1::Model loaded;
  const v1::Table table = ConstantTable(0.5F);
  ASSERT_TRUE(Upload("mine", table, false, &loaded).ok());
  EXPECT_EQ(loaded.name(), "mine");
  EXPECT_EQ(loaded.version(), 1u);
  EXPECT_EQ(loaded.heads(), kHeads);
  EXPECT_EQ(loaded.source(), "upload");
  EXPECT_EQ(loaded.format(), "upload");
  EXPECT_EQ(loaded.content_hash().size(), 64u);
  EXPECT_GT(loaded.loaded_at().seconds(), 1700000000);
  ASSERT_EQ(loaded.tables_size(), 1);
  EXPECT_EQ(loaded.tables(0).t5().values_size(), 0) << "values are for those who ask";
  v1::Model found;
  ASSERT_TRUE(Get("mine", true, &found).ok());
  v1::Table expected = table;
  expected.set_name("decoder");
  EXPECT_EQ(found.tables(0).SerializeAsString(), expected.SerializeAsString());
}

TEST_F(ModelsTest, EveryRuleCanBeUploaded) {
  v1::Table alibi;
  alibi.set_heads(2);
  alibi.mutable_alibi()->add_slopes(0.5F);
  alibi.mutable_alibi()->add_slopes(0.25F);
  v1::Table per_offset;
  per_offset.set_heads(2);
  per_offset.set_bidirectional(true);
  per_offset.mutable_per_offset()->set_min_offset(-1);
  for (int i = 0; i < 6; ++i) per_offset.mutable_per_offset()->add_values(static_cast<float>(i));
  ASSERT_TRUE(Upload("rules", alibi, false).ok());
  v1::Model model;
  const grpc::Status status = Upload("rules", per_offset, false, &model);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(model.version(), 2u);
  ASSERT_EQ(model.tables_size(), 2);
  EXPECT_EQ(model.tables(1).name(), "encoder");

  v1::GetBiasRequest request;
  request.set_model("rules");
  request.set_table("encoder");
  request.set_query_count(2);
  request.set_key_count(4);
  request.add_heads(1);
  v1::GetBiasResponse response;
  ASSERT_TRUE(Bias(request, &response).ok());
  EXPECT_EQ(response.mask(), v1::MASK_NONE);
  EXPECT_EQ(response.buckets_size(), 0);
  // Offsets 0 -1 -2 -3 / 1 0 -1 -2 over values 3 4 5 for -1, 0, 1; the nearer end's value outside.
  EXPECT_THAT(response.offsets(), testing::ElementsAre(0, -1, -2, -3, 1, 0, -1, -2));
  EXPECT_THAT(response.values(), testing::ElementsAre(4, 3, 3, 3, 5, 4, 3, 3));
}

TEST_F(ModelsTest, BadUploads) {
  const struct {
    const char* name;
    void (*spoil)(v1::Table&);
    StatusCode code = StatusCode::INVALID_ARGUMENT;
  } kCases[] = {
      {"no_rule", [](v1::Table& t) { t.clear_rule(); }},
      {"no_heads", [](v1::Table& t) { t.set_heads(0); }},
      {"negative_heads", [](v1::Table& t) { t.set_heads(-1); }},
      {"absurd_heads", [](v1::Table& t) { t.set_heads(std::numeric_limits<std::int64_t>::max()); }},
      {"too_few_values", [](v1::Table& t) { t.mutable_t5()->mutable_values()->RemoveLast(); }},
      {"too_many_values", [](v1::Table& t) { t.mutable_t5()->add_values(1); }},
      {"no_values", [](v1::Table& t) { t.mutable_t5()->clear_values(); }},
      {"nan", [](v1::Table& t) { t.mutable_t5()->set_values(3, std::numeric_limits<float>::quiet_NaN()); }},
      {"infinite", [](v1::Table& t) { t.mutable_t5()->set_values(0, std::numeric_limits<float>::infinity()); }},
      {"one_bucket", [](v1::Table& t) { t.mutable_t5()->set_num_buckets(1); }},
      {"absurd_buckets", [](v1::Table& t) { t.mutable_t5()->set_num_buckets(std::int64_t{1} << 62); }},
      {"no_distance", [](v1::Table& t) { t.mutable_t5()->set_max_distance(0); }},
      {"negative_distance", [](v1::Table& t) { t.mutable_t5()->set_max_distance(-128); }},
      {"causal_with_negative_offsets",
       [](v1::Table& t) {
         t.mutable_per_offset()->set_min_offset(-2);
         for (int i = 0; i < 4; ++i) t.mutable_per_offset()->add_values(0);
       }},
      {"per_offset_no_multiple_of_heads",
       [](v1::Table& t) {
         for (int i = 0; i < 5; ++i) t.mutable_per_offset()->add_values(0);
       }},
      {"slopes_other_than_heads", [](v1::Table& t) { t.mutable_alibi()->add_slopes(0.5F); }},
      {"name_with_slash", [](v1::Table& t) { t.set_name("decoder/1"); }},
  };
  for (const auto& c : kCases) {
    v1::Table table = ConstantTable(1);
    c.spoil(table);
    const grpc::Status status = Upload("bad", table, false);
    EXPECT_EQ(status.error_code(), c.code) << c.name << ": " << status.error_message();
    EXPECT_NE(status.error_message(), "") << c.name;
    v1::Model found;
    EXPECT_EQ(Get("bad", false, &found).error_code(), StatusCode::NOT_FOUND) << c.name;
  }
  v1::Table far = ConstantTable(1);
  far.mutable_t5()->set_max_distance(std::int64_t{1} << 62);
  const grpc::Status too_far = Upload("bad", far, false);
  EXPECT_TRUE(too_far.error_code() == StatusCode::RESOURCE_EXHAUSTED ||
              too_far.error_code() == StatusCode::INVALID_ARGUMENT)
      << too_far.error_message();
}

TEST_F(ModelsTest, DuplicatesNeedReplace) {
  ASSERT_TRUE(Upload("mine", ConstantTable(1), false).ok());
  EXPECT_EQ(Upload("mine", ConstantTable(2), false).error_code(), StatusCode::ALREADY_EXISTS);
  v1::Model model;
  ASSERT_TRUE(Upload("mine", ConstantTable(2), true, &model).ok());
  EXPECT_EQ(model.version(), 2u);
  EXPECT_EQ(Upload("book", ConstantTable(1), true).error_code(), StatusCode::ALREADY_EXISTS) << "book is embedded";
}

TEST_F(ModelsTest, BadNames) {
  for (const std::string& name :
       {std::string(), std::string("a/b/c"), std::string(".."), std::string(".a"), std::string("a\0b", 3),
        std::string("a b"), std::string(129, 'a'), std::string("\xc3\xa4")}) {
    EXPECT_EQ(Upload(name, ConstantTable(1), false).error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(Unload(name).error_code(), StatusCode::INVALID_ARGUMENT) << name;
    v1::Model found;
    EXPECT_EQ(Get(name, false, &found).error_code(), StatusCode::INVALID_ARGUMENT) << name;
  }
  v1::Model found;
  EXPECT_EQ(Get("nobody", false, &found).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Unload("nobody").error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ModelsTest, WithoutARootNothingIsLoaded) {
  grpc::ClientContext context;
  v1::LoadModelRequest request;
  request.set_path("model.json");
  v1::LoadModelResponse response;
  EXPECT_EQ(server_.models().LoadModel(&context, request, &response).error_code(), StatusCode::FAILED_PRECONDITION);
  grpc::ClientContext reload;
  v1::ReloadModelRequest again;
  again.set_name("book");
  v1::ReloadModelResponse reloaded;
  EXPECT_EQ(server_.models().ReloadModel(&reload, again, &reloaded).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(ModelsTest, PagesCoverEverythingOnceInOrder) {
  for (char c = 'a'; c < 'h'; ++c) ASSERT_TRUE(Upload(std::string("m-") + c, ConstantTable(1), false).ok());
  for (const std::int64_t page_size : {1, 2, 3, 9, 10, 11, 1000, 0}) {
    std::vector<std::string> names;
    std::string token;
    do {
      ASSERT_LE(names.size(), 10u);
      v1::ListModelsResponse page;
      const grpc::Status status = List(page_size, token, &page);
      ASSERT_TRUE(status.ok()) << status.error_message();
      if (page_size > 0) {
        EXPECT_LE(page.models_size(), page_size);
      }
      for (const v1::Model& model : page.models()) names.push_back(model.name());
      token = page.next_page_token();
    } while (!token.empty());
    EXPECT_THAT(names,
                testing::ElementsAre("book", "m-a", "m-b", "m-c", "m-d", "m-e", "m-f", "m-g", "t5-tiny", kModel));
  }
}

TEST_F(ModelsTest, BadPages) {
  v1::ListModelsResponse page;
  EXPECT_EQ(List(-1, "", &page).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(List(1001, "", &page).error_code(), StatusCode::INVALID_ARGUMENT);
  const grpc::Status status = List(10, "book", &page);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf(status).field(), "page_token");
}

// The 6x6 grid of nb = 3, dist_max = 5.
TEST_F(ModelsTest, TheBooksGrid) {
  v1::GetBiasRequest request;
  request.set_model("book");
  request.set_query_count(6);
  request.set_key_count(6);
  v1::GetBiasResponse response;
  ASSERT_TRUE(Bias(request, &response).ok());
  const std::vector<std::vector<int>> kGrid = {{0},          {1, 0},          {2, 1, 0},
                                               {2, 2, 1, 0}, {3, 2, 2, 1, 0}, {3, 3, 2, 2, 1, 0}};
  ASSERT_EQ(response.buckets_size(), 36);
  EXPECT_EQ(response.table(), "decoder");
  EXPECT_EQ(response.mask(), v1::MASK_CAUSAL);
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) {
      const int cell = static_cast<int>(6 * i + j);
      EXPECT_EQ(response.buckets(cell), j <= i ? kGrid[i][j] : -1);
      EXPECT_EQ(response.offsets(cell), static_cast<int>(i) - static_cast<int>(j));
      if (j > i) {
        EXPECT_EQ(response.values(cell), 0.0F);
      }
    }
  }
}

TEST_F(ModelsTest, BadWindows) {
  const struct {
    const char* field;
    void (*spoil)(v1::GetBiasRequest&);
  } kCases[] = {
      {"query_count", [](v1::GetBiasRequest& r) { r.set_query_count(0); }},
      {"key_count", [](v1::GetBiasRequest& r) { r.set_key_count(-3); }},
      {"query_count", [](v1::GetBiasRequest& r) { r.set_query_count(std::numeric_limits<std::int64_t>::max()); }},
      {"query_start", [](v1::GetBiasRequest& r) { r.set_query_start(-1); }},
      {"query_start", [](v1::GetBiasRequest& r) { r.set_query_start(std::int64_t{1} << 31); }},
      {"key_start", [](v1::GetBiasRequest& r) { r.set_key_start(std::numeric_limits<std::int64_t>::max()); }},
      {"heads[1]",
       [](v1::GetBiasRequest& r) {
         r.add_heads(0);
         r.add_heads(kHeads);
       }},
      {"heads[0]", [](v1::GetBiasRequest& r) { r.add_heads(-1); }},
      {"mask", [](v1::GetBiasRequest& r) { r.set_mask(static_cast<v1::Mask>(99)); }},
  };
  for (const auto& c : kCases) {
    v1::GetBiasRequest request;
    request.set_model(kModel);
    request.set_query_count(2);
    request.set_key_count(2);
    c.spoil(request);
    v1::GetBiasResponse response;
    const grpc::Status status = Bias(request, &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << c.field << ": " << status.error_message();
    EXPECT_EQ(DetailOf(status).field(), c.field);
  }
}

// Each answer belongs to one version as a whole: its output is that version's, whatever is replaced or unloaded
// meanwhile.
TEST_F(ModelsTest, CallsKeepTheVersionTheyStartedWith) {
  constexpr int kVariants = 4;
  const v1::ComputeAttentionRequest base =
      ValidRequest({.batch = 1, .query_length = 64, .key_length = 64, .head_dim = 16});
  std::map<std::string, std::string> output_by_hash;
  for (int i = 0; i < kVariants; ++i) {
    const std::string name = "fixed-" + std::to_string(i);
    v1::Model model;
    ASSERT_TRUE(Upload(name, ConstantTable(static_cast<float>(i)), false, &model).ok());
    v1::ComputeAttentionRequest request = base;
    request.set_model(name);
    v1::ComputeAttentionResponse response;
    ASSERT_TRUE(server_.Compute(request, &response).ok());
    output_by_hash[model.content_hash()] = response.output();
  }
  ASSERT_EQ(output_by_hash.size(), static_cast<std::size_t>(kVariants));

  std::atomic<int> answered{0};
  const absl::Time end = absl::Now() + test::Patience();
  std::vector<std::thread> clients;
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&] {
      v1::ComputeAttentionRequest request = base;
      request.set_model("moving");
      while (answered.load() < 200 && absl::Now() < end) {
        v1::ComputeAttentionResponse response;
        const grpc::Status status = server_.Compute(request, &response);
        if (status.error_code() == StatusCode::NOT_FOUND) continue;
        ASSERT_TRUE(status.ok()) << status.error_message();
        ASSERT_EQ(response.output(), output_by_hash[response.content_hash()]);
        answered.fetch_add(1);
      }
    });
  }
  std::uint64_t last_version = 0;
  for (int i = 0; answered.load() < 200 && absl::Now() < end; ++i) {
    v1::Model model;
    ASSERT_TRUE(Upload("moving", ConstantTable(static_cast<float>(i % kVariants)), true, &model).ok());
    EXPECT_GT(model.version(), last_version) << "versions only grow, over an unload too";
    last_version = model.version();
    if (i % 5 == 4) {
      ASSERT_TRUE(Unload("moving").ok());
    }
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(answered.load(), 200);
}

}  // namespace
}  // namespace attnd::e2e
