// Changes of models that overlap, and the bounds of answers.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_methods.h"
#include "server/models/methods.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;

// Two changes of a model at once: the second one comes when the first has read its file and has not yet changed
// anything. What each call answers, and what is loaded in the end.
TEST_F(ModelMethodsTest, ChangesThatOverlap) {
  constexpr char kOther[] = R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.25]}}})";
  const auto write_twice = [&] {
    Write("a.json");
    Write("b.json", kOther);
  };
  struct Case {
    const char* name;
    std::function<void()> before;
    std::function<grpc::Status()> first, second;
    StatusCode first_code, second_code;
    std::uint64_t version;  // of "a" in the end; 0: none
  };
  const Case kCases[] = {
      {"load while loaded", [] {}, [&] { return Load("a", "a.json"); }, [&] { return Load("a", "b.json"); },
       StatusCode::ALREADY_EXISTS, StatusCode::OK, 1},
      {"load while uploaded", [] {}, [&] { return Load("a", "a.json"); }, [&] { return Upload("a", Table()); },
       StatusCode::ALREADY_EXISTS, StatusCode::OK, 1},
      {"reload while unloaded", [&] { Load("a", "a.json"); }, [&] { return Reload("a"); }, [&] { return Unload("a"); },
       StatusCode::NOT_FOUND, StatusCode::OK, 0},
      {"reload while reloaded", [&] { Load("a", "a.json"); }, [&] { return Reload("a"); },
       [&] {
         Write("a.json", kOther);
         return Reload("a");
       },
       StatusCode::OK, StatusCode::OK, 2},
      {"reload while another took its name", [&] { Load("a", "a.json"); }, [&] { return Reload("a"); },
       [&] {
         EXPECT_TRUE(Unload("a").ok());
         return Load("a", "b.json");
       },
       StatusCode::NOT_FOUND, StatusCode::OK, 2},
      {"upload while uploaded", [&] { Upload("a", Table(true)); }, [&] { return Upload("a", Table()); },
       [&] {
         v1::Table named = Table();
         named.set_name("decoder.1");
         return Upload("a", named);
       },
       StatusCode::OK, StatusCode::OK, 3},
      {"upload while the same was uploaded", [] {}, [&] { return Upload("a", Table()); },
       [&] { return Upload("a", Table()); }, StatusCode::ALREADY_EXISTS, StatusCode::OK, 1},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Start(root_);
    write_twice();
    c.before();
    grpc::Status second;
    v1::Model made_second;
    bool ran = false;
    meanwhile_ = [&] {
      ran = true;
      second = c.second();
      made_second = model_;
    };
    const grpc::Status first = c.first();
    const v1::Model made_first = model_;
    ASSERT_TRUE(ran);
    EXPECT_EQ(first.error_code(), c.first_code) << first.error_message();
    EXPECT_EQ(second.error_code(), c.second_code) << second.error_message();
    EXPECT_EQ(made_first.name(), first.ok() ? "a" : "") << "a refusal has no model";
    const grpc::Status now = Get("a");
    EXPECT_EQ(now.error_code(), c.version == 0 ? StatusCode::NOT_FOUND : StatusCode::OK);
    EXPECT_EQ(model_.version(), c.version);
    if (first.ok()) {
      EXPECT_EQ(made_first.content_hash(), model_.content_hash()) << "what it answers is what is loaded";
    } else if (c.version != 0) {
      EXPECT_EQ(made_second.content_hash(), model_.content_hash());
    }
    // No other version is given for the one that was asked for.
    for (std::uint64_t version = 1; version <= c.version + 1; ++version) {
      v1::GetBiasResponse window;
      EXPECT_EQ(Get("a", version).ok(), version == c.version) << version;
      EXPECT_EQ(Bias("a", version, 1, &window).ok(), version == c.version) << version;
      if (version == c.version) {
        EXPECT_EQ(window.content_hash(), model_.content_hash());
      }
    }
  }
}

// A page's answer stays small enough for any client, however much could not be loaded.
TEST_F(ModelMethodsTest, FailedModelsAreCountedAndTheFirstThousandShown) {
  constexpr int kFailed = 1003;
  const std::string long_name(200, '\xff');  // each byte is shown in four
  for (int i = 0; i < kFailed; ++i) Write(absl::StrCat(1000 + i, long_name, ".json"), "{");
  ASSERT_TRUE(registry_->LoadRoot().ok());
  ASSERT_TRUE(List(1).ok());
  EXPECT_EQ(page_.failed_model_count(), kFailed);
  ASSERT_EQ(page_.failed_models_size(), 1000);
  for (const v1::FailedModel& failed : page_.failed_models()) {
    EXPECT_LE(failed.name().size(), 300U);
    EXPECT_LE(failed.path().size(), 300U);
    EXPECT_LE(failed.reason().size(), 800U);
    EXPECT_NE(failed.reason(), "");
  }
  EXPECT_LT(page_.ByteSizeLong(), 3U << 19);
}

TEST_F(ModelMethodsTest, APageHasAHundredUnlessMoreAreAskedFor) {
  limits_.max_models = 300;
  limits_.max_page_size = 200;
  Start(root_);
  for (int i = 0; i < 201; ++i) ASSERT_TRUE(Upload(absl::StrCat("m", 1000 + i), Table()).ok());
  ASSERT_TRUE(List(0).ok());
  EXPECT_EQ(page_.models_size(), 100);
  EXPECT_NE(page_.next_page_token(), "");
  ASSERT_TRUE(List(200).ok());
  EXPECT_EQ(page_.models_size(), 200);
  EXPECT_NE(page_.next_page_token(), "");
  EXPECT_EQ(List(201).error_code(), StatusCode::INVALID_ARGUMENT);
}

// What a call reserves for its answer covers it.
TEST_F(ModelMethodsTest, TheBytesOfAnAnswerCoverIt) {
  limits_.max_table_values = 100'000;
  Start(root_);
  constexpr int kValues = 40'000;
  v1::Table t5 = Table(false);
  t5.set_heads(kValues / 4);
  t5.mutable_t5()->mutable_values()->Resize(kValues, 1);
  v1::Table alibi;
  alibi.set_heads(kValues);
  alibi.mutable_alibi()->mutable_slopes()->Resize(kValues, 1);
  v1::Table per_offset;
  per_offset.set_heads(kValues / 4);
  per_offset.mutable_per_offset()->mutable_values()->Resize(kValues, 1);
  int model = 0;
  for (const v1::Table& table : {t5, alibi, per_offset}) {
    const std::string name = absl::StrCat("m", model++);
    const grpc::Status uploaded = Upload(name, table);
    ASSERT_TRUE(uploaded.ok()) << uploaded.error_message();
    v1::GetModelRequest request;
    request.set_name(name);
    EXPECT_EQ(methods_->AnswerBytes(request), 0) << "without values it is small";
    request.set_include_values(true);
    ASSERT_TRUE(Get(name, 0, true).ok());
    const auto needed = static_cast<std::int64_t>(model_.SpaceUsedLong() + model_.ByteSizeLong());
    EXPECT_GE(methods_->AnswerBytes(request) + 4096, needed);
    EXPECT_LE(methods_->AnswerBytes(request), 2 * needed);
    request.set_version(7);
    EXPECT_EQ(methods_->AnswerBytes(request), 0) << "it will be refused";
    v1::GetBiasRequest window;
    window.set_model(name);
    window.set_query_count(1);
    window.set_key_count(1);
    EXPECT_GT(methods_->AnswerBytes(window), table.heads() * 4);
    window.set_version(7);
    EXPECT_EQ(methods_->AnswerBytes(window), 0);
  }
}

}  // namespace
}  // namespace attnd::server
