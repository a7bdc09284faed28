// Two changes of one model at once, in an order that the test decides: one is stopped before it takes effect, others
// are made, then it goes on. Whatever the order, no change is lost, none is undone by an older one, and no memory is
// left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/registry.h"
#include "stop_point.h"

namespace attnd::model {
namespace {

namespace fs = std::filesystem;
using ModelOr = absl::StatusOr<std::shared_ptr<const Model>>;

std::string Text(int value) {
  return absl::StrCat(R"({"tables": {"decoder": {"rule": "per_offset", "min_offset": 0, "values": [[)", value, "]]}}}");
}

bias::BiasTable Table(float value) {
  auto table = bias::BiasTable::Create(1, bias::PerOffsetRule{0, {value}});
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

// A registry over the files a.json and b.json, which say 1 and 2.
class Stage {
 public:
  explicit Stage(RegistryOptions options) {
    root_ = fs::path(::testing::TempDir()) / "registry_order_test";
    fs::remove_all(root_);
    fs::create_directories(root_);
    Write("a.json", 1);
    Write("b.json", 2);
    options.model_root = root_;
    options.before_change = [this] {
      if (stop_ != nullptr) stop_->Pass();
    };
    registry_ = std::make_unique<Registry>(std::move(options));
  }
  ~Stage() { fs::remove_all(root_); }

  void Write(const std::string& name, int value) const {
    std::ofstream(root_ / (name + ".new"), std::ios::trunc) << Text(value);
    fs::rename(root_ / (name + ".new"), root_ / name);
  }

  ModelOr Load(const std::string& name, const std::string& path) { return registry_->Load(name, path); }
  ModelOr Upload(const std::string& table, float value, bool replace = false) {
    return registry_->Upload("m", table, Table(value), replace);
  }
  Registry& registry() { return *registry_; }

  // Runs `held` on a thread of its own up to the point where it takes effect, then `meanwhile`, then the rest of
  // `held`.
  ModelOr Run(const std::function<ModelOr(Stage&)>& held, const std::function<void(Stage&)>& meanwhile) {
    test::StopPoint stop;
    stop_ = &stop;
    ModelOr result = absl::UnknownError("has not run");
    std::thread thread([&] { result = held(*this); });
    EXPECT_TRUE(stop.Reached()) << "the call that is held never takes effect";
    meanwhile(*this);
    stop.Continue();
    thread.join();
    stop_ = nullptr;
    return result;
  }

  // "m 2: decoder=5 encoder=1; n 1: decoder=2", the models with their versions, tables and values.
  std::string Models() const {
    return absl::StrJoin(registry_->List("", 100), "; ", [](std::string* out, const auto& model) {
      absl::StrAppend(out, model->name(), " ", model->version(), ":");
      for (const auto& [name, table] : model->contents().tables) {
        absl::StrAppend(out, " ", name, "=", table.Value(0, 0));
      }
    });
  }

 private:
  fs::path root_;
  test::StopPoint* stop_ = nullptr;
  std::unique_ptr<Registry> registry_;
};

struct Case {
  std::string what;
  std::function<void(Stage&)> before;
  std::function<ModelOr(Stage&)> held;
  std::function<void(Stage&)> meanwhile;
  absl::StatusCode code;  // of the held call
  std::string models;     // afterwards
  std::int64_t max_models = 100;
  std::int64_t max_tables = 100;  // of one model
};

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kAlreadyExists = absl::StatusCode::kAlreadyExists;
constexpr auto kResourceExhausted = absl::StatusCode::kResourceExhausted;

void Nothing(Stage&) {}
void LoadA(Stage& s) { EXPECT_TRUE(s.Load("m", "a.json").ok()); }
void LoadB(Stage& s) { EXPECT_TRUE(s.Load("m", "b.json").ok()); }
void LoadOther(Stage& s) { EXPECT_TRUE(s.Load("other", "b.json").ok()); }
void Unload(Stage& s) { EXPECT_TRUE(s.registry().Unload("m").ok()); }
void UploadDecoder(Stage& s) { EXPECT_TRUE(s.Upload("decoder", 7).ok()); }
void UploadEncoder(Stage& s) { EXPECT_TRUE(s.Upload("encoder", 8).ok()); }
ModelOr Reload(Stage& s) { return s.registry().Reload("m"); }
ModelOr Load(Stage& s) { return s.Load("m", "a.json"); }
ModelOr Upload(Stage& s) { return s.Upload("decoder", 9); }
ModelOr Replace(Stage& s) { return s.Upload("decoder", 9, /*replace=*/true); }

// What is done one after the other, without errors.
std::function<void(Stage&)> All(std::vector<std::function<void(Stage&)>> steps) {
  return [steps = std::move(steps)](Stage& s) {
    for (const auto& step : steps) step(s);
  };
}
std::function<void(Stage&)> Change(int value) {
  return [value](Stage& s) { s.Write("a.json", value); };
}
void Renew(Stage& s) { EXPECT_TRUE(Reload(s).ok()); }

const std::vector<Case>& Cases() {
  static const auto& cases = *new std::vector<Case>{
      {"reload: alone", LoadA, Reload, Nothing, kOk, "m 2: decoder=1"},
      {"reload: the file changes, too late", LoadA, Reload, Change(5), kOk, "m 2: decoder=1"},
      {"reload: a later one read a newer file", LoadA, Reload, All({Change(5), Renew}), kOk, "m 2: decoder=5"},
      {"reload: two later ones", LoadA, Reload, All({Change(5), Renew, Change(6), Renew}), kOk, "m 3: decoder=6"},
      {"reload: unloaded", LoadA, Reload, Unload, kNotFound, ""},
      {"reload: loaded from elsewhere", LoadA, Reload, All({Unload, LoadB}), kNotFound, "m 2: decoder=2"},
      {"reload: loaded again", LoadA, Reload, All({Unload, Change(5), LoadA}), kOk, "m 2: decoder=5"},
      {"reload: made by an upload", LoadA, Reload, All({Unload, UploadEncoder}), kNotFound, "m 2: encoder=8"},
      {"load: alone", Nothing, Load, LoadOther, kOk, "m 1: decoder=1; other 1: decoder=2"},
      {"load: loaded by another", Nothing, Load, LoadB, kAlreadyExists, "m 1: decoder=2"},
      {"load: loaded and unloaded by another", Nothing, Load, All({LoadB, Unload}), kOk, "m 2: decoder=1"},
      {"load: made by an upload", Nothing, Load, UploadEncoder, kAlreadyExists, "m 1: encoder=8"},
      {"load: the last place is taken", Nothing, Load, LoadOther, kResourceExhausted, "other 1: decoder=2", 1},
      {"upload: alone", Nothing, Upload, LoadOther, kOk, "m 1: decoder=9; other 1: decoder=2"},
      {"upload: another table", Nothing, Upload, UploadEncoder, kOk, "m 2: decoder=9 encoder=8"},
      {"upload: the same table", Nothing, Upload, UploadDecoder, kAlreadyExists, "m 1: decoder=7"},
      {"upload: replaces the same table", Nothing, Replace, UploadDecoder, kOk, "m 2: decoder=9"},
      {"upload: loaded", Nothing, Upload, LoadB, kAlreadyExists, "m 1: decoder=2"},
      {"upload: the last place is taken", Nothing, Upload, LoadOther, kResourceExhausted, "other 1: decoder=2", 1},
      {"upload: a table of this model in the last place", UploadEncoder, Upload, Nothing, kOk,
       "m 2: decoder=9 encoder=8", 1},
      {"upload: unloaded", UploadEncoder, Upload, Unload, kOk, "m 2: decoder=9"},
      {"upload: unloaded, with no place left", UploadEncoder, Upload, All({Unload, LoadOther}), kResourceExhausted,
       "other 1: decoder=2", 1},
      {"upload: made again", UploadDecoder, Replace, All({Unload, UploadEncoder}), kOk, "m 3: decoder=9 encoder=8"},
      {"upload: the model is full", Nothing, Upload, UploadEncoder, kResourceExhausted, "m 1: encoder=8", 100, 1},
      {"upload: the model is almost full", Nothing, Upload, UploadEncoder, kOk, "m 2: decoder=9 encoder=8", 100, 2},
  };
  return cases;
}

TEST(RegistryOrderTest, AChangeThatTakesEffectLateUndoesNone) {
  const std::int64_t table_bytes = Table(1).bytes();
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.what);
    RegistryOptions options;
    options.max_models = c.max_models;
    options.max_model_bytes = c.max_tables * table_bytes;
    Stage stage(options);
    c.before(stage);
    std::int64_t tables = 0;
    {
      const ModelOr held = stage.Run(c.held, c.meanwhile);
      EXPECT_EQ(held.status().code(), c.code) << held.status();
      EXPECT_EQ(stage.Models(), c.models);
      if (held.ok()) {
        EXPECT_EQ(stage.registry().Find("m").value(), *held) << "a change returns what is current";
      }
      for (const auto& model : stage.registry().List("", 100)) {
        tables += static_cast<std::int64_t>(model->contents().tables.size());
      }
    }
    EXPECT_EQ(stage.registry().table_bytes(), tables * table_bytes) << "of the current models alone";
    for (const auto& model : stage.registry().List("", 100)) {
      EXPECT_TRUE(stage.registry().Unload(model->name()).ok());
    }
    EXPECT_EQ(stage.registry().table_bytes(), 0);
    EXPECT_EQ(stage.Models(), "");
  }
}

TEST(RegistryOrderTest, NothingWaitsForAChange) {
  for (const auto& held : std::vector<std::function<ModelOr(Stage&)>>{Load, Upload}) {
    Stage stage({});
    const ModelOr result = stage.Run(held, [](Stage& s) {
      LoadOther(s);
      EXPECT_TRUE(s.registry().Find("other").ok());
      EXPECT_TRUE(s.registry().Reload("other").ok());
      EXPECT_TRUE(s.registry().Unload("other").ok());
      EXPECT_TRUE(s.registry().Failed().empty());
    });
    EXPECT_TRUE(result.ok()) << result.status();
  }
}

// Whoever asks for a version gets that one or an error, never another.
TEST(RegistryOrderTest, OnlyTheCurrentVersionIsFound) {
  Stage stage({});
  const std::vector<std::pair<std::function<void(Stage&)>, std::uint64_t>> steps = {
      {LoadA, 1},  {All({Change(5), Renew}), 2}, {Renew, 3},         {Unload, 0}, {LoadB, 4},
      {Unload, 0}, {UploadEncoder, 5},           {UploadDecoder, 6}, {Unload, 0}, {LoadA, 7}};
  std::vector<std::shared_ptr<const Model>> held;
  for (const auto& [step, current] : steps) {
    step(stage);
    for (std::uint64_t version = 0; version <= 9; ++version) {
      const ModelOr found = stage.registry().Find("m", version);
      const bool there = current != 0 && (version == 0 || version == current);
      ASSERT_EQ(found.ok(), there) << "version " << version << " while " << current << " is current";
      if (there) {
        EXPECT_EQ((*found)->version(), current);
        held.push_back(*found);
      } else {
        EXPECT_EQ(found.status().code(), kNotFound);
      }
    }
  }
  for (std::size_t i = 1; i < held.size(); ++i) EXPECT_GE(held[i]->version(), held[i - 1]->version());
  EXPECT_EQ(held.front()->FindTable("")->table->Value(0, 0), 1.0F) << "an old version stays what it was";
}

}  // namespace
}  // namespace attnd::model
