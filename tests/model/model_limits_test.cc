// Each limit of the readers and of the registry: what is exactly as large as it may be is accepted, and one more is
// refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "files/safetensors_writer.h"
#include "gguf_builder.h"
#include "model/gguf_cursor.h"
#include "model/gguf_tables.h"
#include "model/hf_checkpoint.h"
#include "model/hf_config.h"
#include "model/json_model.h"
#include "model/names.h"
#include "model/registry.h"
#include "model/tables.h"

namespace attnd::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

absl::Span<const std::byte> BytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A file of `beginning`, then zeros, then `end`.
class LongFile final : public files::ByteSource {
 public:
  LongFile(std::string beginning, std::int64_t zeros, std::string end)
      : beginning_(std::move(beginning)), end_(std::move(end)), end_begin_(Size(beginning_) + zeros) {}
  std::int64_t size() const override { return end_begin_ + Size(end_); }
  absl::Status ReadAt(std::int64_t offset, absl::Span<std::byte> out) const override {
    for (std::size_t i = 0; i < out.size(); ++i, ++offset) {
      const bool zero = offset >= Size(beginning_) && offset < end_begin_;
      const std::string& text = offset < Size(beginning_) ? beginning_ : end_;
      const std::int64_t at = offset < Size(beginning_) ? offset : offset - end_begin_;
      out[i] = zero ? std::byte{0} : static_cast<std::byte>(text[static_cast<std::size_t>(at)]);
    }
    return absl::OkStatus();
  }

 private:
  static std::int64_t Size(const std::string& text) { return static_cast<std::int64_t>(text.size()); }
  const std::string beginning_, end_;
  const std::int64_t end_begin_;
};

absl::StatusOr<ModelTables> ReadGgufFile(const std::string& bytes, const ReadLimits& limits = {}) {
  const auto open = [&](const std::string&) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
    return files::OpenMemory(BytesOf(bytes));
  };
  return ReadGguf(open, "m.gguf", limits);
}

// The builder's file after a change.
absl::Status Gguf(const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder builder;
  change(builder);
  return ReadGgufFile(builder.Build()).status();
}

std::string Text(std::int64_t size, char c = 'x') { return std::string(static_cast<std::size_t>(size), c); }

std::string Nested(std::int64_t depth) { return Text(depth, '[') + Text(depth, ']'); }

std::string Config(const std::string& field, std::int64_t value) {
  std::string text = R"({"model_type": "t5", "num_heads": 2, "num_layers": 1})";
  if (field == "num_heads")
    return absl::StrReplaceAll(text, {{"\"num_heads\": 2", absl::StrCat("\"num_heads\": ", value)}});
  if (field == "num_layers") {
    return absl::StrReplaceAll(text, {{"\"num_layers\": 1", absl::StrCat("\"num_layers\": ", value)}});
  }
  text.insert(1, absl::StrCat("\"", field, "\": ", value, ", "));
  return text;
}

constexpr char kTensor[] = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

std::string Weights() {
  static const std::vector<float>& values = *new std::vector<float>(8, 1.0F);
  const files::TensorToWrite tensor{
      kTensor, "F32", {4, 2}, {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float)}};
  return *files::SafetensorsHeader({tensor}, {}) + std::string(reinterpret_cast<const char*>(values.data()), 32);
}

// A checkpoint in memory; `config` and `index` are padded with spaces to sizes.
absl::StatusOr<ModelTables> Checkpoint(std::int64_t config_size, std::int64_t index_size,
                                       const ReadLimits& limits = {}) {
  std::string config = R"({"model_type": "t5", "num_heads": 2, "num_layers": 1, "relative_attention_num_buckets": 4})";
  std::string index = absl::StrCat(R"({"weight_map": {")", kTensor, R"(": "w.safetensors"}})");
  const std::string weights = Weights();
  config.resize(std::max(config.size(), static_cast<std::size_t>(config_size)), ' ');
  index.resize(std::max(index.size(), static_cast<std::size_t>(index_size)), ' ');
  const auto open = [&](const std::string& name) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
    if (name == "config.json") return files::OpenMemory(BytesOf(config));
    if (index_size == 0 && name == "model.safetensors") return files::OpenMemory(BytesOf(weights));
    if (name == "model.safetensors.index.json" && index_size > 0) return files::OpenMemory(BytesOf(index));
    if (name == "w.safetensors") return files::OpenMemory(BytesOf(weights));
    return absl::NotFoundError(name);
  };
  return ReadHfCheckpoint(open, limits);
}

absl::Status Json(const std::string& text) { return ParseJsonModel(text, ReadLimits{}).status(); }

constexpr char kJson[] =
    R"({"architecture": "x", "tables": {"decoder": {"rule": "per_offset", "min_offset": 0, "values": [[1, 2]]}}})";

// A model of that many tables.
absl::Status Tables(std::int64_t count) {
  ModelTables contents;
  for (std::int64_t i = 0; i < count; ++i) {
    absl::Status added =
        AddTable(absl::StrCat("decoder.", i), 1, bias::AlibiRule{false, {1}}, ReadLimits{}, {}, contents);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

absl::Status GgufTables(std::int64_t count) {
  return Gguf([count](GgufBuilder& b) {
    b.tensors.clear();
    for (std::int64_t i = 0; i < count; ++i) {
      b.tensors.push_back(
          {absl::StrCat("enc.blk.", i, ".attn_rel_b.weight"), {2, 4}, 0, static_cast<std::uint64_t>(64 * i)});
    }
    b.data = std::string(static_cast<std::size_t>(64 * count), '\0');
  });
}

// A GGUF header of exactly `size` bytes, most of them an array that is skipped.
absl::Status GgufHeader(std::int64_t size) {
  GgufBuilder builder;
  const std::string before = "marks the place of the array";
  builder.metadata[3].value = Raw<std::uint32_t>(0) + Raw<std::uint64_t>(0) + before;
  const std::string whole = builder.Build();
  const std::size_t at = whole.find(before);
  const std::string end = whole.substr(at + before.size());
  const std::int64_t end_of_header = static_cast<std::int64_t>(
      whole.find(Raw<std::uint64_t>(128), whole.find("token_embd.weight")) + 8);  // of the last tensor's offset
  const std::int64_t rest = end_of_header - static_cast<std::int64_t>(at + before.size());
  const std::int64_t count = size - static_cast<std::int64_t>(at) - rest;
  std::string beginning = whole.substr(0, at - 8) + Raw(count);
  // The data begins at the next multiple of 64.
  const std::string padded = end.substr(0, static_cast<std::size_t>(rest)) +
                             std::string(static_cast<std::size_t>((64 - size % 64) % 64), '\0') + builder.data;
  const auto open = [&](const std::string&) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
    return std::make_unique<LongFile>(beginning, count, padded);
  };
  return ReadGguf(open, "m.gguf", ReadLimits{}).status();
}

absl::Status MetadataCount(std::int64_t count) {
  return Gguf([count](GgufBuilder& b) {
    while (static_cast<std::int64_t>(b.metadata.size()) < count) {
      b.metadata.push_back({absl::StrCat("k", b.metadata.size()), 0, std::string(1, '\1')});
    }
  });
}

absl::Status TensorCount(std::int64_t count) {
  return Gguf([count](GgufBuilder& b) {
    while (static_cast<std::int64_t>(b.tensors.size()) < count) {
      b.tensors.push_back({absl::StrCat("t", b.tensors.size()), {0}, 24, 384});
    }
    b.data.resize(384);
  });
}

absl::Status Shards(std::int64_t count) {
  return Gguf([count](GgufBuilder& b) {
    b.metadata.push_back({"split.count", 4, Raw(static_cast<std::uint32_t>(count))});
    b.metadata.push_back({"split.no", 4, Raw<std::uint32_t>(0)});
    b.metadata.push_back({"split.tensors.count", 4, Raw<std::uint32_t>(3)});
  });
}

struct Limit {
  const char* what;
  std::int64_t most;
  std::function<absl::Status(std::int64_t)> at;
  const char* says;   // one more
  bool reads = true;  // whether what is exactly as large is read without any error
};

TEST(LimitsTest, WhatIsAsLargeAsItMayBeIsReadAndOneMoreIsNot) {
  const Limit limits[] = {
      {"a model's name", 128, [](std::int64_t n) { return CheckModelName(Text(n)); }, "1 to 128 letters"},
      {"a name of two parts", 128, [](std::int64_t n) { return CheckModelName("a/" + Text(n - 2)); },
       "1 to 128 letters"},
      {"a layer's digits", 4, [](std::int64_t n) { return CheckTableName("decoder." + Text(n, '9')); }, "decoder.N"},
      {"the tables of a model", 2000, Tables, "at most 2000 tables"},
      {"gguf: tables", 2000, GgufTables, "more than 2000 tables"},
      {"gguf: a key", 65535, [](std::int64_t n) { return Gguf([n](GgufBuilder& b) { b.metadata[5].key = Text(n); }); },
       "string: expected at most 65535"},
      {"gguf: a tensor's name", 1024,
       [](std::int64_t n) { return Gguf([n](GgufBuilder& b) { b.tensors[2].name = Text(n); }); },
       "string: expected at most 1024"},
      {"gguf: the architecture", 64,
       [](std::int64_t n) { return Gguf([n](GgufBuilder& b) { b.metadata[0].value = GgufString(Text(n)); }); },
       "general.architecture"},
      {"gguf: arrays in arrays", 16,
       [](std::int64_t n) {
         return Gguf([n](GgufBuilder& b) {
           b.metadata[3].value.clear();
           for (std::int64_t i = 0; i < n; ++i) b.metadata[3].value += Raw<std::uint32_t>(9) + Raw<std::uint64_t>(1);
           b.metadata[3].value += Raw<std::uint32_t>(0) + Raw<std::uint64_t>(0);
         });
       },
       "nested deeper than 16"},
      {"gguf: metadata", 65536, MetadataCount, "metadata count: expected at most 65536"},
      {"gguf: tensors", 131072, TensorCount, "tensor count: expected at most 131072"},
      {"gguf: shards", 65535, Shards, "split.count: expected an integer from 0 to 65535", false},
      {"gguf: the header", GgufCursor::kMaxHeaderBytes, GgufHeader, "the header is too long"},
      {"config.json: num_heads", std::int64_t{1} << 31,
       [](std::int64_t n) { return ParseHfConfig(Config("num_heads", n)).status(); }, "num_heads: expected"},
      {"config.json: buckets", std::int64_t{1} << 31,
       [](std::int64_t n) { return ParseHfConfig(Config("relative_attention_num_buckets", n)).status(); },
       "num_buckets: expected"},
      {"config.json: distance", std::int64_t{1} << 31,
       [](std::int64_t n) { return ParseHfConfig(Config("relative_attention_max_distance", n)).status(); },
       "max_distance: expected"},
      {"config.json: layers", 1000, [](std::int64_t n) { return ParseHfConfig(Config("num_layers", n)).status(); },
       "num_layers: expected"},
      {"config.json: decoder layers", 1000,
       [](std::int64_t n) { return ParseHfConfig(Config("num_decoder_layers", n)).status(); },
       "num_decoder_layers: expected"},
      {"config.json: depth", 500,
       [](std::int64_t n) {
         return ParseHfConfig(
                    absl::StrCat(R"({"model_type": "t5", "num_heads": 2, "num_layers": 1, "x": )", Nested(n - 1), "}"))
             .status();
       },
       "nested deeper than 500"},
      {"config.json: size", 1 << 20, [](std::int64_t n) { return Checkpoint(n, 0).status(); },
       "expected at most 1048576 bytes"},
      {"the index: size", 1 << 25, [](std::int64_t n) { return Checkpoint(0, n).status(); },
       "expected at most 33554432 bytes"},
      {"json: depth", 8,
       [](std::int64_t n) { return Json(absl::StrCat(R"({"tables": {"decoder": )", Nested(n - 2), "}}")); },
       "nested deeper than 8", false},
      {"json: the architecture", 64,
       [](std::int64_t n) {
         return Json(absl::StrReplaceAll(kJson, {{"\"x\"", absl::StrCat("\"", Text(n), "\"")}}));
       },
       "up to 64 bytes"},
  };
  for (const Limit& limit : limits) {
    const absl::Status most = limit.at(limit.most);
    EXPECT_EQ(most.ok(), limit.reads) << limit.what << ": " << most;
    EXPECT_FALSE(absl::StrContains(most.message(), limit.says)) << limit.what << ": " << most;
    const absl::Status more = limit.at(limit.most + 1);
    EXPECT_TRUE(absl::IsInvalidArgument(more) || absl::IsResourceExhausted(more)) << limit.what << ": " << more;
    EXPECT_THAT(std::string(more.message()), HasSubstr(limit.says)) << limit.what;
  }
}

// Limits that an operator sets, for each format: what needs exactly that much is read, and with one less it is not.
TEST(LimitsTest, TheOperatorsLimitsAreExactForEveryFormat) {
  const std::string gguf = GgufBuilder().Build();
  struct Format {
    const char* name;
    std::function<absl::StatusOr<ModelTables>(const ReadLimits&)> read;
    std::int64_t file_bytes;  // of its largest file; 0: reads no file
  };
  const Format formats[] = {
      {"gguf", [&](const ReadLimits& limits) { return ReadGgufFile(gguf, limits); },
       static_cast<std::int64_t>(gguf.size())},
      {"huggingface", [](const ReadLimits& limits) { return Checkpoint(0, 0, limits); },
       static_cast<std::int64_t>(Weights().size())},
      {"json", [](const ReadLimits& limits) { return ParseJsonModel(kJson, limits); }, 0},
  };
  const auto expect_exact = [](const Format& format, std::int64_t ReadLimits::*limit, std::int64_t needed,
                               const char* name) {
    ReadLimits limits;
    limits.*limit = needed;
    EXPECT_TRUE(format.read(limits).ok()) << format.name << ": " << format.read(limits).status();
    --(limits.*limit);
    const absl::Status refused = format.read(limits).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << format.name << ": " << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(name)) << format.name;
  };
  for (const Format& format : formats) {
    const absl::StatusOr<ModelTables> whole = format.read({});
    ASSERT_TRUE(whole.ok()) << format.name << ": " << whole.status();
    std::size_t most = 0;
    for (const auto& [name, table] : whole->tables) most = std::max(most, table.offset_form().values.size());
    expect_exact(format, &ReadLimits::max_table_values, static_cast<std::int64_t>(most), "max_table_values");
    if (format.file_bytes != 0) {
      expect_exact(format, &ReadLimits::max_file_bytes, format.file_bytes, "max_model_file_bytes");
    }
    const ModelMemory enough(whole->bytes(), whole->bytes());
    const ModelMemory::Version version = enough.NewVersion();
    ReadLimits limits;
    limits.memory = &version;
    {
      const absl::StatusOr<ModelTables> counted = format.read(limits);
      EXPECT_TRUE(counted.ok()) << format.name << ": " << counted.status();
      EXPECT_EQ(enough.used_bytes(), whole->bytes()) << format.name;
    }
    EXPECT_EQ(enough.used_bytes(), 0) << format.name;
    const std::int64_t kBelow = whole->bytes() - 1;
    for (const auto& [of_model, of_all] : {std::pair{kBelow, whole->bytes()}, {whole->bytes(), kBelow}}) {
      const ModelMemory little(of_model, of_all);
      const ModelMemory::Version refused = little.NewVersion();
      limits.memory = &refused;
      EXPECT_EQ(format.read(limits).status().code(), absl::StatusCode::kResourceExhausted) << format.name;
      EXPECT_EQ(little.used_bytes(), 0) << format.name << ": what was refused is given back";
    }
  }
}

// An uploaded table exists already: both its rule and its form count.
TEST(LimitsTest, AnUploadedTableIsHeldToItsValues) {
  const std::vector<bias::Rule> rules = {
      bias::T5Rule{32, 128, true, std::vector<float>(64)}, bias::T5Rule{64, 33, false, std::vector<float>(128)},
      bias::AlibiRule{false, {1, 2}}, bias::PerOffsetRule{-3, std::vector<float>(20)}};
  for (const bias::Rule& rule : rules) {
    const bias::BiasTable table = *bias::BiasTable::Create(2, rule);
    std::size_t of_rule = 2;
    if (const auto* t5 = std::get_if<bias::T5Rule>(&rule)) of_rule = t5->values.size();
    if (const auto* listed = std::get_if<bias::PerOffsetRule>(&rule)) of_rule = listed->values.size();
    const auto needed = static_cast<std::int64_t>(std::max(of_rule, table.offset_form().values.size()));
    for (const std::int64_t limit : {needed, needed - 1}) {
      RegistryOptions options;
      options.max_table_values = limit;
      Registry registry(options);
      const absl::Status status = registry.Upload("m", "", table, false).status();
      EXPECT_EQ(status.code(), limit == needed ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted)
          << "rule " << rule.index() << ": " << status;
    }
  }
}

TEST(LimitsTest, AsManyModelsAsAllowed) {
  for (const std::int64_t most : {1, 3}) {
    const fs::path root = fs::path(::testing::TempDir()) / "limits_test";
    fs::create_directories(root);
    std::ofstream(root / "a.json") << kJson;
    RegistryOptions options;
    options.model_root = root;
    options.max_models = most;
    Registry registry(options);
    for (std::int64_t i = 0; i < most; ++i) EXPECT_TRUE(registry.Load(absl::StrCat("m", i), "a.json").ok()) << i;
    EXPECT_EQ(registry.Load("more", "a.json").status().code(), absl::StatusCode::kResourceExhausted);
    const auto table = [] { return *bias::BiasTable::Create(1, bias::AlibiRule{false, {1}}); };
    EXPECT_EQ(registry.Upload("more", "", table(), false).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(registry.Reload("m0").ok()) << "a new version takes no new place";
    ASSERT_TRUE(registry.Unload("m0").ok());
    EXPECT_TRUE(registry.Upload("more", "", table(), false).ok()) << "an unloaded model leaves its place";
    EXPECT_EQ(registry.Load("m0", "a.json").status().code(), absl::StatusCode::kResourceExhausted);
    fs::remove_all(root);
  }
}

// A JSON file and refs/main are read as wholes, from disk.
TEST(LimitsTest, FilesThatAreReadAsWholes) {
  const fs::path root = fs::path(::testing::TempDir()) / "limits_test";
  fs::create_directories(root / "models--a--b" / "refs");
  fs::create_directories(root / "models--a--b" / "snapshots");
  RegistryOptions options;
  options.model_root = root;
  Registry registry(options);
  const auto sized = [&](const std::string& path, std::int64_t size) {
    std::ofstream(root / path, std::ios::trunc) << "c";
    fs::resize_file(root / path, static_cast<std::uintmax_t>(size));
    return std::string(registry.Load("m", path == "m.json" ? path : "models--a--b").status().message());
  };
  for (const auto& [path, most] : {std::pair{"m.json", std::int64_t{1} << 26}, {"models--a--b/refs/main", 256}}) {
    const std::string says = absl::StrCat("expected at most ", most, " bytes, got ", most + 1);
    EXPECT_THAT(sized(path, most), ::testing::Not(HasSubstr("expected at most"))) << path;
    EXPECT_THAT(sized(path, most + 1), HasSubstr(says)) << path;
  }
  fs::remove_all(root);
}

}  // namespace
}  // namespace attnd::model
