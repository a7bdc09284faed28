// The methods themselves, without a server between; tests/e2e/models_test.cc has them over the wire.

#include "server/models/methods.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model_methods.h"
#include "server/models/page_token.h"

namespace attnd::server {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(ModelMethodsTest, TheFirstPageListsWhatTheStartCouldNotLoad) {
  Write("a.json");
  Write("b.json");
  Write("broken.json", "{");
  Write("bad\xff.json", "{");
  ASSERT_TRUE(registry_->LoadRoot().ok());
  ASSERT_TRUE(List(1).ok());
  ASSERT_EQ(page_.failed_models_size(), 2);
  EXPECT_EQ(page_.failed_model_count(), 2);
  EXPECT_EQ(page_.failed_models(0).path(), "bad\\xff.json");
  EXPECT_EQ(page_.failed_models(1).name(), "broken");
  EXPECT_EQ(page_.failed_models(1).path(), "broken.json");
  EXPECT_THAT(page_.failed_models(1).reason(), HasSubstr("not strict JSON"));
  ASSERT_TRUE(List(1, page_.next_page_token()).ok());
  EXPECT_EQ(page_.failed_models_size(), 0);
  EXPECT_EQ(page_.failed_model_count(), 0);
}

TEST_F(ModelMethodsTest, PagesCoverEveryModelOnceInOrder) {
  std::vector<std::string> expected;
  for (const char* name : {"k", "c", "a", "j", "b", "i", "d", "h", "e", "g", "f"}) {
    ASSERT_TRUE(Upload(name, Table()).ok());
    expected.emplace_back(name);
  }
  std::sort(expected.begin(), expected.end());
  for (std::int64_t page_size = 0; page_size <= limits_.max_page_size; ++page_size) {
    SCOPED_TRACE(page_size);
    const std::int64_t size = page_size == 0 ? limits_.max_page_size : page_size;  // 100 at most
    std::vector<std::string> names;
    std::string token;
    do {
      ASSERT_TRUE(List(page_size, token).ok());
      token = page_.next_page_token();
      ASSERT_GT(page_.models_size(), 0);
      EXPECT_LE(page_.models_size(), size);
      EXPECT_TRUE(token.empty() || page_.models_size() == size) << page_.models_size();
      for (const std::string& name : NamesOfPage()) names.push_back(name);
      for (const v1::Model& model : page_.models()) EXPECT_EQ(model.tables(0).t5().values_size(), 0);
      ASSERT_LE(names.size(), expected.size());
    } while (!token.empty());
    EXPECT_EQ(names, expected);
  }
}

TEST_F(ModelMethodsTest, TheLastPageHasNoTokenAlsoWhereItIsFull) {
  ASSERT_TRUE(List(3).ok());
  EXPECT_EQ(page_.models_size(), 0);
  EXPECT_EQ(page_.next_page_token(), "");
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(Upload(name, Table()).ok());
  ASSERT_TRUE(List(3).ok());
  EXPECT_THAT(NamesOfPage(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(page_.next_page_token(), "");
  ASSERT_TRUE(List(2).ok());
  EXPECT_THAT(NamesOfPage(), ElementsAre("a", "b"));
  EXPECT_NE(page_.next_page_token(), "");
}

TEST_F(ModelMethodsTest, PagesGoOnWhereTheLastEndedWhateverComesAndGoes) {
  for (const char* name : {"b", "d", "f"}) ASSERT_TRUE(Upload(name, Table()).ok());
  ASSERT_TRUE(List(2).ok());
  const std::string token = page_.next_page_token();
  ASSERT_TRUE(Unload("d").ok());  // the one that the token names
  for (const char* name : {"a", "e"}) ASSERT_TRUE(Upload(name, Table()).ok());
  ASSERT_TRUE(List(2, token).ok());
  EXPECT_THAT(NamesOfPage(), ElementsAre("e", "f"));
}

TEST_F(ModelMethodsTest, BadPagesAreRefused) {
  for (const std::int64_t size : {std::int64_t{-1}, limits_.max_page_size + 1, std::int64_t{1} << 62}) {
    const grpc::Status status = List(size);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << size;
    EXPECT_THAT(status.error_message(), HasSubstr("page_size"));
  }
  for (const std::string& token : {std::string("b"), std::string("!"), MakePageToken("")}) {
    const grpc::Status status = List(1, token);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << token;
    EXPECT_THAT(status.error_message(), HasSubstr("page_token"));
  }
  EXPECT_TRUE(List(limits_.max_page_size, MakePageToken("no-such")).ok()) << "a page begins after any name";
}

TEST_F(ModelMethodsTest, LoadsReloadsAndUnloads) {
  Write("one.json");
  ASSERT_TRUE(Load("", "one.json").ok());
  EXPECT_EQ(model_.name(), "one");
  EXPECT_EQ(model_.version(), 1U);
  EXPECT_EQ(model_.source(), "one.json");
  EXPECT_EQ(model_.tables(0).t5().values_size(), 0);
  const std::string hash = model_.content_hash();
  ASSERT_TRUE(Load("other", "./one.json").ok());
  EXPECT_EQ(model_.name(), "other");

  Write("one.json", R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})");
  ASSERT_TRUE(Reload("one").ok());
  EXPECT_EQ(model_.version(), 2U);
  EXPECT_NE(model_.content_hash(), hash);
  EXPECT_TRUE(model_.tables(0).has_alibi());
  EXPECT_EQ(Get("one", 1).error_code(), StatusCode::NOT_FOUND);
  ASSERT_TRUE(Get("one", 2, /*include_values=*/true).ok());
  EXPECT_THAT(model_.tables(0).alibi().slopes(), ElementsAre(0.5F));
  ASSERT_TRUE(Get("other").ok());
  EXPECT_EQ(model_.content_hash(), hash) << "the other is not touched";

  ASSERT_TRUE(Unload("one").ok());
  EXPECT_EQ(Get("one").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Unload("one").error_code(), StatusCode::NOT_FOUND);
  ASSERT_TRUE(Load("one", "one.json").ok());
  EXPECT_EQ(model_.version(), 3U) << "versions are used once";
}

TEST_F(ModelMethodsTest, LoadingIsRefused) {
  Write("good.json");
  Write("bad.json", "{");
  ASSERT_TRUE(Load("there", "good.json").ok());
  const struct {
    const char* name;
    const char* path;
    StatusCode code;
  } kCases[] = {
      {"", "", StatusCode::INVALID_ARGUMENT},
      {"", ".", StatusCode::INVALID_ARGUMENT},
      {"", "bad.json", StatusCode::INVALID_ARGUMENT},
      {"a b", "good.json", StatusCode::INVALID_ARGUMENT},
      {".a", "good.json", StatusCode::INVALID_ARGUMENT},
      {"new", "no-such.json", StatusCode::NOT_FOUND},
      {"there", "good.json", StatusCode::ALREADY_EXISTS},
      {"new", "../good.json", StatusCode::PERMISSION_DENIED},
      {"new", "/etc/passwd", StatusCode::PERMISSION_DENIED},
  };
  for (const auto& c : kCases) {
    const grpc::Status status = Load(c.name, c.path);
    EXPECT_EQ(status.error_code(), c.code) << c.path << ": " << status.error_message();
    EXPECT_NE(status.error_message(), "");
    EXPECT_EQ(model_.name(), "") << "a refusal has no model";
  }
  ASSERT_TRUE(List(0).ok());
  EXPECT_THAT(NamesOfPage(), ElementsAre("there"));
  Start("");
  EXPECT_EQ(Load("new", "good.json").error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(ModelMethodsTest, ReloadingIsRefusedAndTheOldVersionStays) {
  Write("a.json");
  ASSERT_TRUE(Load("", "a.json").ok());
  const std::string hash = model_.content_hash();
  Write("a.json", "{");
  EXPECT_EQ(Reload("a").error_code(), StatusCode::INVALID_ARGUMENT);
  fs::remove(root_ / "a.json");
  EXPECT_EQ(Reload("a").error_code(), StatusCode::NOT_FOUND);
  ASSERT_TRUE(Get("a").ok());
  EXPECT_EQ(model_.version(), 1U);
  EXPECT_EQ(model_.content_hash(), hash);
  ASSERT_TRUE(Upload("uploaded", Table()).ok());
  EXPECT_EQ(Reload("uploaded").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reload("no-such").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Reload("").error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ModelMethodsTest, NamesThatAreNone) {
  for (const std::string& name : {std::string(), std::string("."), std::string("a/b/c"), std::string(129, 'a')}) {
    EXPECT_EQ(Get(name).error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(Unload(name).error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(Reload(name).error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(Upload(name, Table()).error_code(), StatusCode::INVALID_ARGUMENT) << name;
  }
}

TEST_F(ModelMethodsTest, UploadsMakeAModelAndAddToIt) {
  ASSERT_TRUE(Upload("m", Table(false)).ok());
  EXPECT_EQ(model_.version(), 1U);
  EXPECT_EQ(model_.source(), "upload");
  EXPECT_EQ(model_.tables(0).name(), "decoder");
  EXPECT_EQ(model_.tables(0).t5().values_size(), 0);
  ASSERT_TRUE(Upload("m", Table(true)).ok());
  EXPECT_EQ(model_.version(), 2U);
  ASSERT_EQ(model_.tables_size(), 2);
  EXPECT_EQ(model_.tables(1).name(), "encoder") << "what has no name is called by its direction";
  v1::Table named = Table(true);
  named.set_name("decoder.3");
  ASSERT_TRUE(Upload("m", named).ok());
  EXPECT_EQ(model_.tables_size(), 3);
  EXPECT_EQ(Upload("m", named).error_code(), StatusCode::ALREADY_EXISTS);
  named.mutable_t5()->set_values(0, 77);
  ASSERT_TRUE(Upload("m", named, /*replace=*/true).ok());
  EXPECT_EQ(model_.version(), 4U);
  ASSERT_TRUE(Get("m", 4, /*include_values=*/true).ok());
  EXPECT_EQ(model_.tables(1).name(), "decoder.3");
  EXPECT_EQ(model_.tables(1).t5().values(0), 77);
}

TEST_F(ModelMethodsTest, UploadsAreRefusedAndChangeNothing) {
  Write("file.json");
  ASSERT_TRUE(Load("", "file.json").ok());
  ASSERT_TRUE(Upload("m", Table()).ok());
  const std::string before = model_.content_hash();
  const struct {
    const char* model;
    std::function<void(v1::Table&)> change;
    StatusCode code;
  } kCases[] = {
      {"m", [](v1::Table&) {}, StatusCode::ALREADY_EXISTS},
      {"file", [](v1::Table&) {}, StatusCode::ALREADY_EXISTS},
      {"m", [](v1::Table& t) { t.clear_rule(); }, StatusCode::INVALID_ARGUMENT},
      {"m", [](v1::Table& t) { t.set_name("middle"); }, StatusCode::INVALID_ARGUMENT},
      {"m", [](v1::Table& t) { t.mutable_t5()->add_values(1); }, StatusCode::INVALID_ARGUMENT},
      {"m", [](v1::Table& t) { t.mutable_t5()->set_max_distance(1 << 20); }, StatusCode::RESOURCE_EXHAUSTED},
      {"m", [](v1::Table& t) { t.mutable_t5()->mutable_values()->Resize(101, 1); }, StatusCode::RESOURCE_EXHAUSTED},
      {"m",
       [](v1::Table& t) {  // other heads than the model has
         t = Table(true, 2);
       },
       StatusCode::INVALID_ARGUMENT},
  };
  for (const auto& c : kCases) {
    v1::Table table = Table();
    c.change(table);
    const grpc::Status status = Upload(c.model, table);
    EXPECT_EQ(status.error_code(), c.code) << table.ShortDebugString() << ": " << status.error_message();
    EXPECT_EQ(model_.name(), "");
  }
  ASSERT_TRUE(Get("m").ok());
  EXPECT_EQ(model_.content_hash(), before);
  EXPECT_EQ(model_.version(), 1U);
}

TEST_F(ModelMethodsTest, ModelsUpToTheLimit) {
  Write("a.json");
  for (std::int64_t i = 0; i < limits_.max_models; ++i) ASSERT_TRUE(Upload(absl::StrCat("m", i), Table()).ok()) << i;
  EXPECT_EQ(Upload("more", Table()).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Load("more", "a.json").error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Upload("m0", Table(true)).ok()) << "a new version is no new model";
  ASSERT_TRUE(Unload("m0").ok());
  EXPECT_TRUE(Load("more", "a.json").ok());
}

TEST_F(ModelMethodsTest, BiasIsThatOfTheVersionAskedFor) {
  limits_.max_bias_cells = 9;
  Start(root_);
  ASSERT_TRUE(Upload("m", Table()).ok());
  ASSERT_TRUE(Upload("m", Table(), /*replace=*/true).ok());
  v1::GetBiasResponse window;
  EXPECT_EQ(Bias("m", 1, 3, &window).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Bias("no-such", 0, 3, &window).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Bias("", 0, 3, &window).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Bias("m", 0, 0, &window).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Bias("m", 0, 4, &window).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(window.values_size(), 0);
  ASSERT_TRUE(Bias("m", 2, 3, &window).ok());
  EXPECT_EQ(window.version(), 2U);
  EXPECT_THAT(window.offsets(), ElementsAre(0, -1, -2, 1, 0, -1, 2, 1, 0));
}

TEST_F(ModelMethodsTest, EachChangeIsALineInTheLog) {
  const auto line = [this] {
    const std::string lines = log_.str();
    log_.str("");
    EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1) << lines;
    return lines;
  };
  Write("a.json");
  ASSERT_TRUE(Load("", "a.json").ok());
  EXPECT_THAT(line(), HasSubstr("loaded model a version 1 from a.json"));
  ASSERT_TRUE(Reload("a").ok());
  EXPECT_THAT(line(), HasSubstr("reloaded model a version 2"));
  ASSERT_TRUE(Unload("a").ok());
  EXPECT_THAT(line(), HasSubstr("unloaded model a"));
  ASSERT_TRUE(Upload("m", Table()).ok());
  EXPECT_THAT(line(), HasSubstr("uploaded model m version 1 from upload"));
  ASSERT_FALSE(Load("", "no-such.json").ok());
  EXPECT_THAT(line(), HasSubstr("not loaded model no-such.json: "));
  ASSERT_FALSE(Upload("a\nforged line", Table()).ok());
  EXPECT_THAT(line(), HasSubstr("not uploaded model a\\nforged line: "));
  ASSERT_TRUE(List(0).ok());
  ASSERT_TRUE(Get("m").ok());
  EXPECT_EQ(log_.str(), "") << "what changes nothing is not logged";
}

}  // namespace
}  // namespace attnd::server
