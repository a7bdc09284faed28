// Broken checkpoints: each case breaks one thing of a valid one that is made here.
#include "model/hf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "files/safetensors_writer.h"

namespace attnd::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

struct Tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using Tensors = std::map<std::string, Tensor>;

constexpr char kEncoder[] = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
constexpr char kDecoder[] = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
constexpr char kConfig[] =
    R"({"model_type": "t5", "num_heads": 2, "num_layers": 1, "relative_attention_num_buckets": 4,)"
    R"( "relative_attention_max_distance": 10, "architectures": ["T5ForConditionalGeneration"]})";

Tensor Floats(std::vector<std::int64_t> shape, std::vector<float> values) {
  return {"F32", std::move(shape), std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4)};
}

Tensors ValidTensors() {
  return {{kEncoder, Floats({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8})},
          {kDecoder, Floats({4, 2}, {-1, -2, -3, -4, -5, -6, -7, -8})},
          {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
           Floats({4, 2}, {9, 9, 9, 9, 9, 9, 9, 9})},
          {"shared.weight", Floats({3, 2}, {0, 0, 0, 0, 0, 0})}};
}

std::string Safetensors(const Tensors& tensors) {
  std::vector<files::TensorToWrite> to_write;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const auto* bytes = reinterpret_cast<const std::byte*>(tensor.bytes.data());
    to_write.push_back({name, tensor.dtype, tensor.shape, {bytes, tensor.bytes.size()}});
    data += tensor.bytes;
  }
  const auto header = files::SafetensorsHeader(to_write, {});
  EXPECT_TRUE(header.ok()) << header.status();
  return *header + data;
}

struct Checkpoint {
  std::string config = kConfig;
  Tensors tensors = ValidTensors();
  std::map<std::string, std::string> other_files;  // beside, or instead of, the two

  absl::StatusOr<ModelTables> Read(const ReadLimits& limits = {}) const {
    std::map<std::string, std::string> files = {{"config.json", config}, {"model.safetensors", Safetensors(tensors)}};
    for (const auto& [name, text] : other_files) files[name] = text;
    return ReadHfCheckpoint(
        [&](const std::string& name) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
          const auto found = files.find(name);
          // A file whose text is "-" is not there.
          if (found == files.end() || found->second == "-") return absl::NotFoundError(name);
          const auto* bytes = reinterpret_cast<const std::byte*>(found->second.data());
          return files::OpenMemory({bytes, found->second.size()});
        },
        limits);
  }
};

TEST(HfCheckpointTest, ReadsTheTwoTablesAndNotTheDecoy) {
  const auto contents = Checkpoint().Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("decoder"), Key("encoder")));
  const bias::BiasTable& decoder = contents->tables.at("decoder");
  EXPECT_EQ(decoder.heads(), 2);
  EXPECT_FALSE(decoder.bidirectional());
  EXPECT_EQ(decoder.Value(1, 0), -2.0F);
  EXPECT_TRUE(contents->tables.at("encoder").bidirectional());
  EXPECT_EQ(std::get<bias::T5Rule>(decoder.rule()).max_distance, 10);
}

TEST(HfCheckpointTest, FieldsThatOldConfigsLack) {
  Checkpoint checkpoint;
  checkpoint.config = R"({"model_type": "t5", "num_heads": 1, "num_layers": 12})";
  checkpoint.tensors = {{kDecoder, Floats({32, 1}, std::vector<float>(32, 1.0F))}};
  const auto contents = checkpoint.Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  const auto& rule = std::get<bias::T5Rule>(contents->tables.at("decoder").rule());
  EXPECT_EQ(rule.num_buckets, 32);
  EXPECT_EQ(rule.max_distance, 128);
}

TEST(HfCheckpointTest, AnEncoderAlone) {
  Checkpoint checkpoint;
  checkpoint.tensors = {{kEncoder, ValidTensors().at(kEncoder)}};
  auto contents = checkpoint.Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("encoder")));
  // As a model with a classifier on top has it.
  checkpoint.tensors = {{std::string("transformer.") + kEncoder, ValidTensors().at(kEncoder)}};
  contents = checkpoint.Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("encoder")));
}

TEST(HfCheckpointTest, UmT5NeedsEveryLayer) {
  Checkpoint checkpoint;
  checkpoint.config =
      absl::StrReplaceAll(kConfig, {{"\"t5\"", "\"umt5\""}, {"\"num_layers\": 1", "\"num_layers\": 2"}});
  EXPECT_THAT(std::string(checkpoint.Read().status().message()), HasSubstr("encoder.block.1"));
  for (const char* name : {kEncoder, kDecoder}) {
    Tensor second = checkpoint.tensors.at(name);
    second.bytes[0] = 1;
    checkpoint.tensors[absl::StrReplaceAll(name, {{"block.0", "block.1"}})] = second;
  }
  const auto contents = checkpoint.Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("decoder.0"), Key("decoder.1"), Key("encoder.0"), Key("encoder.1")));
  EXPECT_NE(contents->tables.at("decoder.0").Value(0, 0), contents->tables.at("decoder.1").Value(0, 0));
}

// A decoder has its own number of layers, or the encoder's.
TEST(HfCheckpointTest, UmT5DecodersCountTheirOwnLayers) {
  Checkpoint checkpoint;
  checkpoint.config = absl::StrReplaceAll(
      kConfig, {{"\"t5\"", "\"umt5\""}, {"\"num_layers\": 1", "\"num_layers\": 1, \"num_decoder_layers\": 2"}});
  EXPECT_THAT(std::string(checkpoint.Read().status().message()), HasSubstr("decoder.block.1"));
  checkpoint.tensors[absl::StrReplaceAll(kDecoder, {{"block.0", "block.1"}})] = checkpoint.tensors.at(kDecoder);
  const auto contents = checkpoint.Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("decoder.0"), Key("decoder.1"), Key("encoder.0")));
}

// What Python's json, with which Hugging Face writes and reads config.json, has beyond JSON.
TEST(HfCheckpointTest, FieldsThatAreNotReadMayBeAnything) {
  for (const std::string value :
       {"NaN", "[0.0, Infinity]", "-Infinity", "1E400", "123456789012345678901234567890", R"("\ud800")",
        R"({"__float__": "Infinity"})", "1, \"other\": 2",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"}) {
    Checkpoint checkpoint;
    checkpoint.config.replace(0, 1, "{\"other\": " + value + ", ");
    const auto contents = checkpoint.Read();
    ASSERT_TRUE(contents.ok()) << value << ": " << contents.status();
    EXPECT_EQ(contents->tables.at("decoder").Value(0, 0), -1.0F) << value;
  }
}

// Another tensor may have any dtype; a table's is named.
TEST(HfCheckpointTest, DtypesThatDoNotConvert) {
  Checkpoint checkpoint;
  checkpoint.tensors["shared.weight"] = {"F8_E4M3FNUZ", {3, 2}, std::string(6, '\1')};
  EXPECT_TRUE(checkpoint.Read().ok()) << checkpoint.Read().status();
  checkpoint.tensors[kEncoder] = {"F8_E4M3", {4, 2}, std::string(8, '\1')};
  const absl::Status status = checkpoint.Read().status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(kEncoder));
  EXPECT_THAT(std::string(status.message()), HasSubstr("dtype: expected F32, F16 or BF16, got F8_E4M3"));
}

TEST(HfCheckpointTest, RefusesABrokenConfig) {
  struct Case {
    std::string from;
    std::string to;
    std::string says;
  };
  const Case cases[] = {
      {"\"t5\"", "\"bert\"", "model_type: expected t5, mt5 or umt5, got \"bert\""},
      {"\"t5\"", "[\"t5\"]", "model_type: expected t5, mt5 or umt5, got [\"t5\"]"},
      {"\"t5\"", "5", "model_type"},
      {"\"model_type\": \"t5\", ", "", "model_type: missing"},
      {"\"num_heads\": 2, ", "", "num_heads: missing"},
      {"\"num_heads\": 2", "\"num_heads\": 0", "num_heads: expected an integer from 1"},
      {"\"num_heads\": 2", "\"num_heads\": -2", "num_heads"},
      {"\"num_heads\": 2", "\"num_heads\": 2.5", "num_heads"},
      {"\"num_heads\": 2", "\"num_heads\": \"2\"", "num_heads"},
      {"\"num_heads\": 2", "\"num_heads\": 18446744073709551615", "num_heads"},
      {"\"num_heads\": 2", "\"num_heads\": 3", "shape: expected [4, 3] (buckets and heads in config.json), got [4, 2]"},
      {"\"num_heads\": 2", "\"num_heads\": 2, \"num_heads\": 3", "shape: expected [4, 3]"},  // the last counts
      {"\"num_heads\": 2", "\"num_heads\": NaN", "num_heads: expected an integer from 1 to 2147483648, got NaN"},
      {"num_buckets\": 4", "num_buckets\": Infinity",
       "num_buckets: expected an integer from 1 to 2147483648, got Infinity"},
      {"max_distance\": 10", "max_distance\": -Infinity",
       "max_distance: expected an integer from 1 to 2147483648, got -Inf"},
      {"\"num_layers\": 1", "\"num_layers\": 1E400", "num_layers: expected an integer from 1 to 1000, got Infinity"},
      {"\"num_heads\": 2", "\"num_heads\": 123456789012345678901234567890", "num_heads: expected an integer"},
      {"\"t5\"", "NaN", "model_type: expected t5, mt5 or umt5, got NaN"},
      {"{\"model_type", "\xEF\xBB\xBF{\"model_type",
       "config.json: not JSON as Python reads it: begins with a byte-order"},
      {"num_buckets\": 4", "num_buckets\": 5", "shape: expected [5, 2]"},
      {"max_distance\": 10", "max_distance\": 1", "max_distance: expected more than"},
      {"\"num_layers\": 1", "\"num_layers\": 1000000000", "num_layers"},
      {"{\"model_type", "[{\"model_type", "config.json: not JSON as Python reads it"},
      {kConfig, "[]", "config.json: expected an object"},
      {kConfig, "-", "no config.json"},
      {kConfig, std::string(2 << 20, ' '), "config.json: expected at most"},
  };
  for (const Case& c : cases) {
    Checkpoint checkpoint;
    const std::size_t at = checkpoint.config.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    checkpoint.config.replace(at, c.from.size(), c.to);
    const absl::Status status = checkpoint.Read().status();
    EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status)) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(HfCheckpointTest, RefusesBrokenTensors) {
  const std::string missing_layer = "encoder.block.0.layer.0.SelfAttention.q.weight";
  struct Case {
    std::string says;
    std::function<void(Tensors&)> break_it;
  };
  const Case cases[] = {
      {"relative_attention_bias.weight\": missing",
       [&](Tensors& t) {
         t[missing_layer] = t[kEncoder];
         t.erase(kEncoder);
       }},
      {"shape: expected [4, 2] (buckets and heads in config.json), got [2, 4]",
       [](Tensors& t) {
         t[kDecoder].shape = {2, 4};
       }},
      {"got [8]", [](Tensors& t) { t[kDecoder].shape = {8}; }},
      {"got [4, 2, 1]",
       [](Tensors& t) {
         t[kDecoder].shape = {4, 2, 1};
       }},
      {"got [0, 2]",
       [](Tensors& t) {
         t[kDecoder] = {"F32", {0, 2}, ""};
       }},
      {"dtype: expected F32, F16 or BF16, got I32", [](Tensors& t) { t[kDecoder].dtype = "I32"; }},
      {"got F64",
       [](Tensors& t) {
         t[kDecoder] = {"F64", {4, 2}, std::string(64, '\0')};
       }},
      {"values[3]: expected a finite value, got nan",
       [](Tensors& t) {
         t[kDecoder] = Floats({4, 2}, {1, 2, 3, NAN, 5, 6, 7, 8});
       }},
      {"values[0]: expected a finite value, got inf",
       [](Tensors& t) {
         t[kEncoder] = Floats({4, 2}, {INFINITY, 2, 3, 4, 5, 6, 7, 8});
       }},
      {"values[1]: expected a finite value",  // a half whose exponent says NaN
       [](Tensors& t) {
         t[kDecoder] = {"F16", {4, 2}, std::string("\0\0\xff\x7f", 4) + std::string(12, '\0')};
       }},
      {"neither encoder.block. nor decoder.block.",
       [](Tensors& t) {
         t = {{"shared.weight", t["shared.weight"]}};
       }},
  };
  for (const Case& c : cases) {
    Checkpoint checkpoint;
    c.break_it(checkpoint.tensors);
    const absl::Status status = checkpoint.Read().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(HfCheckpointTest, RefusesATruncatedWeightsFile) {
  Checkpoint checkpoint;
  const std::string whole = Safetensors(checkpoint.tensors);
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    checkpoint.other_files["model.safetensors"] = whole.substr(0, size);
    EXPECT_EQ(checkpoint.Read().status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
  checkpoint.other_files["model.safetensors"] = "-";
  EXPECT_THAT(std::string(checkpoint.Read().status().message()), HasSubstr("neither model.safetensors nor"));
}

// The valid checkpoint in two shards.
Checkpoint Sharded(const std::string& weight_map) {
  Checkpoint checkpoint;
  checkpoint.other_files["model.safetensors"] = "-";
  checkpoint.other_files["model-1.safetensors"] = Safetensors({{kEncoder, checkpoint.tensors.at(kEncoder)}});
  checkpoint.other_files["model-2.safetensors"] = Safetensors({{kDecoder, checkpoint.tensors.at(kDecoder)}});
  checkpoint.other_files["model.safetensors.index.json"] = weight_map;
  return checkpoint;
}

std::string Index(const std::string& encoder_file, const std::string& decoder_file) {
  return std::string(R"({"metadata": {"total_size": 1}, "weight_map": {")") + kEncoder + "\": " + encoder_file +
         ", \"" + kDecoder + "\": " + decoder_file + "}}";
}

TEST(HfCheckpointTest, ReadsShards) {
  const auto contents = Sharded(Index(R"("model-1.safetensors")", R"("model-2.safetensors")")).Read();
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("decoder"), Key("encoder")));
}

TEST(HfCheckpointTest, AShardsNameIsAsLongAsAFilesNameMayBe) {
  for (const std::size_t size : {255U, 256U}) {
    const std::string name = std::string(size - 12, 'w') + ".safetensors";
    Checkpoint checkpoint = Sharded(Index(R"("model-1.safetensors")", "\"" + name + "\""));
    checkpoint.other_files[name] = checkpoint.other_files.at("model-2.safetensors");
    EXPECT_EQ(checkpoint.Read().ok(), size == 255) << size;
  }
}

TEST(HfCheckpointTest, TheIndexOfTensorsThatAreNotReadMayBeAnything) {
  for (const std::string entry : {R"("other": "sub/model.safetensors")", R"("other": 2)", R"("other": NaN)"}) {
    const auto contents = Sharded(Index(R"("model-1.safetensors")", R"("model-2.safetensors", )" + entry)).Read();
    EXPECT_TRUE(contents.ok()) << entry << ": " << contents.status();
  }
}

TEST(HfCheckpointTest, RefusesABrokenIndex) {
  struct Case {
    std::string index;
    std::string says;
  };
  const std::string expected = "expected the name of a .safetensors file in the same folder";
  const Case cases[] = {
      {Index(R"("model-1.safetensors")", R"("../model-2.safetensors")"), expected},
      {Index(R"("model-1.safetensors")", R"("/etc/model-2.safetensors")"), expected},
      {Index(R"("model-1.safetensors")", R"("..")"), expected},
      {Index(R"("model-1.safetensors")", R"(".safetensors")"), expected},
      {Index(R"("model-1.safetensors")", R"("")"), expected},
      {Index(R"("model-1.safetensors")", R"("model-2.safetensors\u0000.safetensors")"), expected},
      {Index(R"("model-1.safetensors")", "2"), expected},
      {Index(R"("model-1.safetensors")", R"("model-3.safetensors")"),
       "names \"model-3.safetensors\", which is missing"},
      {Index(R"("model-1.safetensors")", R"("model-1.safetensors")"), "relative_attention_bias.weight\": missing"},
      {R"({"weight_map": []})", "weight_map: expected an object"},
      {R"({})", "weight_map: expected an object"},
      {R"([])", "weight_map: expected an object"},
      {R"({"weight_map": {"a": "b.safetensors", "a": "b.safetensors"}})", "given twice"},
      {R"({"weight_map": )", "not JSON as Python reads it"},
      {R"({"weight_map": {}})", "neither encoder.block."},
  };
  for (const Case& c : cases) {
    const absl::Status status = Sharded(c.index).Read().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.index;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(HfCheckpointTest, LimitsAreNamed) {
  ReadLimits few_values;
  few_values.max_table_values = 7;
  absl::Status status = Checkpoint().Read(few_values).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 8 values, more than max_table_values, 7"));
  ReadLimits small_files;
  small_files.max_file_bytes = 300;
  status = Checkpoint().Read(small_files).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_model_file_bytes, 300"));
}

}  // namespace
}  // namespace attnd::model
