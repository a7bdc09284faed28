// Broken GGUF files: each case breaks one thing of the builder's valid one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gguf_builder.h"
#include "model/gguf.h"
#include "model/gguf_tables.h"

namespace attnd::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;

absl::StatusOr<ModelTables> Read(const std::string& bytes, const ReadLimits& limits = {}) {
  const auto open = [&](const std::string&) -> absl::StatusOr<std::unique_ptr<files::ByteSource>> {
    return files::OpenMemory({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  };
  return ReadGguf(open, "model.gguf", limits);
}

TEST(GgufTest, ReadsTables) {
  for (const std::uint32_t version : {2U, 3U}) {
    GgufBuilder builder;
    builder.version = version;
    const auto contents = Read(builder.Build());
    ASSERT_TRUE(contents.ok()) << contents.status();
    EXPECT_EQ(contents->architecture, "t5");
    EXPECT_THAT(contents->tables, ElementsAre(Key("decoder"), Key("encoder")));
    EXPECT_EQ(contents->tables.at("decoder").Value(1, 0), 1.0F);
    const auto& encoder = std::get<bias::T5Rule>(contents->tables.at("encoder").rule());
    EXPECT_TRUE(encoder.bidirectional);
    EXPECT_EQ(encoder.max_distance, 128);
    EXPECT_THAT(encoder.values, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  }
}

TEST(GgufTest, AnyArchitecturesPrefixAndAnyIntegerType) {
  GgufBuilder builder;
  builder.metadata[2] = {"umt5-next.attention.relative_buckets_count", 10, Raw<std::uint64_t>(4)};
  EXPECT_TRUE(Read(builder.Build()).ok());
  builder.metadata[2] = {"x.attention.relative_buckets_count", 5, Raw<std::int32_t>(4)};
  EXPECT_TRUE(Read(builder.Build()).ok());
}

// Counts are read from every integer type of the format; negative and too large ones are refused.
TEST(GgufTest, IntegersOfEveryType) {
  struct Case {
    std::uint32_t type;
    std::string value;
    bool valid;
  };
  const Case cases[] = {
      {0, Raw<std::uint8_t>(4), true},
      {1, Raw<std::int8_t>(4), true},
      {2, Raw<std::uint16_t>(4), true},
      {3, Raw<std::int16_t>(4), true},
      {4, Raw<std::uint32_t>(4), true},
      {5, Raw<std::int32_t>(4), true},
      {10, Raw<std::uint64_t>(4), true},
      {11, Raw<std::int64_t>(4), true},
      {1, Raw<std::int8_t>(-4), false},
      {3, Raw<std::int16_t>(-4), false},
      {5, Raw<std::int32_t>(-4), false},
      {11, Raw<std::int64_t>(-4), false},
      {10, Raw<std::uint64_t>(std::uint64_t{1} << 63), false},
      {6, Raw(4.0F), false},
      {12, Raw(4.0), false},
      {7, std::string(1, '\1'), false},
  };
  for (const Case& c : cases) {
    GgufBuilder builder;
    builder.metadata[2] = {"t5.attention.relative_buckets_count", c.type, c.value};
    const absl::Status status = Read(builder.Build()).status();
    EXPECT_EQ(status.ok(), c.valid) << "type " << c.type << ": " << status;
    if (!c.valid) {
      EXPECT_THAT(std::string(status.message()), HasSubstr("relative_buckets_count: expected an integer"));
    }
  }
}

TEST(GgufTest, ACountOfDimsBeyondTheFileIsRefusedBeforeTheyAreRead) {
  std::string bytes = GgufBuilder().Build();
  const std::string name = "enc.blk.0.attn_rel_b.weight";
  const std::uint32_t count = 1 << 20;
  std::memcpy(bytes.data() + bytes.find(name) + name.size(), &count, sizeof(count));
  EXPECT_THAT(std::string(Read(bytes).status().message()), HasSubstr("dims: expected at most"));
}

// The decoder's layers are counted by themselves, or as the encoder's.
TEST(GgufTest, LayersOfTheDecoder) {
  struct Case {
    std::vector<std::pair<std::string, std::uint32_t>> counts;
    bool valid;
  };
  const Case cases[] = {{{}, true},
                        {{{"t5.block_count", 2}}, true},
                        {{{"t5.block_count", 3}}, false},
                        {{{"t5.block_count", 1}}, false},
                        {{{"t5.block_count", 3}, {"t5.decoder_block_count", 2}}, true},
                        {{{"t5.block_count", 2}, {"t5.decoder_block_count", 3}}, false}};
  for (const Case& c : cases) {
    GgufBuilder builder;
    for (const auto& [key, count] : c.counts) builder.metadata.push_back({key, 4, Raw(count)});
    builder.tensors[0].name = "dec.blk.1.attn_rel_b.weight";
    const auto contents = Read(builder.Build());
    ASSERT_EQ(contents.ok(), c.valid) << contents.status();
    if (!c.valid) continue;
    EXPECT_THAT(contents->tables, ElementsAre(Key("decoder.0"), Key("decoder.1")));
    EXPECT_EQ(contents->tables.at("decoder.0").Value(1, 0), 1.0F);
    EXPECT_EQ(contents->tables.at("decoder.1").Value(1, 0), 1.0F + 0.0F) << "the first bucket of head 1";
    EXPECT_EQ(contents->tables.at("decoder.1").Value(0, 1), 2.0F);
  }
}

TEST(GgufTest, ATablePerLayer) {
  GgufBuilder builder;
  builder.tensors[1].name = "enc.blk.1.attn_rel_b.weight";
  const auto contents = Read(builder.Build());
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_THAT(contents->tables, ElementsAre(Key("encoder.0"), Key("encoder.1")));
}

TEST(GgufTest, RefusesOneBrokenThing) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;
  struct Case {
    std::string says;
    std::function<void(GgufBuilder&)> break_it;
  };
  const Case cases[] = {
      {"magic", [](GgufBuilder& b) { b.magic = "GGML"; }},
      {"version: expected 2 or 3, got 1", [](GgufBuilder& b) { b.version = 1; }},
      {"version: expected 2 or 3, got 4", [](GgufBuilder& b) { b.version = 4; }},
      {"big-endian", [](GgufBuilder& b) { b.version = 0x03000000; }},
      {"tensor count", [](GgufBuilder& b) { b.tensor_count_error = 1000000; }},
      {"tensor count", [](GgufBuilder& b) { b.tensor_count_error = INT64_MIN; }},
      {"metadata count", [](GgufBuilder& b) { b.metadata_count_error = 1000000; }},
      {"metadata count", [](GgufBuilder& b) { b.metadata_count_error = -7; }},
      {"string: expected at most", [](GgufBuilder& b) { b.metadata_count_error = 1; }},
      {"", [](GgufBuilder& b) { b.metadata_count_error = -1; }},
      {"", [](GgufBuilder& b) { b.tensor_count_error = 1; }},
      {"metadata: unknown type 13", [](GgufBuilder& b) { b.metadata[5].type = 13; }},
      {"metadata: unknown type 4294967295", [](GgufBuilder& b) { b.metadata[5].type = 0xFFFFFFFF; }},
      {"bool", [](GgufBuilder& b) { b.metadata[5].value = std::string(1, '\2'); }},
      {"key \"general.architecture\" is given twice", [](GgufBuilder& b) { b.metadata[5] = b.metadata[0]; }},
      {"count: expected at most",
       [](GgufBuilder& b) { b.metadata[3].value = Raw<std::uint32_t>(8) + Raw<std::uint64_t>(1) + Raw(kHuge); }},
      {"nested deeper",
       [](GgufBuilder& b) {
         b.metadata[3].value.clear();
         for (int i = 0; i < 20; ++i) b.metadata[3].value += Raw<std::uint32_t>(9) + Raw<std::uint64_t>(1);
       }},
      {"array's elements",
       [](GgufBuilder& b) { b.metadata[3].value = Raw<std::uint32_t>(77) + Raw<std::uint64_t>(1); }},
      {"count: expected at most", [](GgufBuilder& b) { b.metadata[4].value = Raw<std::uint32_t>(6) + Raw(kHuge); }},
      {"count: expected at most",
       [](GgufBuilder& b) { b.metadata[4].value = Raw<std::uint32_t>(12) + Raw(kHuge >> 2); }},
      {"count: expected at most", [](GgufBuilder& b) { b.metadata[0].value = Raw(kHuge); }},
      {"general.architecture",
       [](GgufBuilder& b) {
         b.metadata[0] = {"general.architecture", 4, Raw(5U)};
       }},
      {"general.architecture", [](GgufBuilder& b) { b.metadata[0].value = GgufString("t5\xff"); }},
      {"general.architecture", [](GgufBuilder& b) { b.metadata[0].value = GgufString(std::string(65, 'x')); }},
      {"general.alignment", [](GgufBuilder& b) { b.metadata[1].value = Raw<std::uint32_t>(0); }},
      {"general.alignment", [](GgufBuilder& b) { b.metadata[1].value = Raw<std::uint32_t>(12); }},
      {"ends before its tensors", [](GgufBuilder& b) { b.metadata[1].value = Raw<std::uint32_t>(1U << 31); }},
      {"general.alignment",
       [](GgufBuilder& b) {
         b.metadata[1] = {"general.alignment", 8, GgufString("64")};
       }},
      {"offset: expected a multiple of 128", [](GgufBuilder& b) { b.metadata[1].value = Raw<std::uint32_t>(128); }},
      {"relative_buckets_count: missing", [](GgufBuilder& b) { b.metadata.erase(b.metadata.begin() + 2); }},
      {"relative_buckets_count: expected an integer",
       [](GgufBuilder& b) {
         b.metadata[2] = {"t5.attention.relative_buckets_count", 8, GgufString("4")};
       }},
      {"relative_buckets_count: expected an integer",
       [](GgufBuilder& b) {
         b.metadata[2] = {"t5.attention.relative_buckets_count", 5, Raw(-4)};
       }},
      {"relative_buckets_count: given twice",
       [](GgufBuilder& b) {
         b.metadata[5] = {"x.attention.relative_buckets_count", 4, Raw(4U)};
       }},
      {"dims: expected [heads, 5], got [2, 4]", [](GgufBuilder& b) { b.metadata[2].value = Raw<std::uint32_t>(5); }},
      {"string: expected at most", [](GgufBuilder& b) { b.metadata[0].key = std::string(70000, 'k'); }},
      {"string: expected at most", [](GgufBuilder& b) { b.tensors[0].name = std::string(2000, 'n'); }},
      {"dims: expected [heads, 4], got [2, 4, 1, 1, 1]",
       [](GgufBuilder& b) {
         b.tensors[0].dims = {2, 4, 1, 1, 1};
       }},
      {"dims: expected [heads, 4], got [2, 4, 1]",
       [](GgufBuilder& b) {
         b.tensors[0].dims = {2, 4, 1};
       }},
      {"dims: expected [heads, 4], got [4, 2]",
       [](GgufBuilder& b) {
         b.tensors[0].dims = {4, 2};
       }},
      {"dims: too large",
       [](GgufBuilder& b) {
         b.tensors[0].dims = {kHuge, 4};
       }},
      {"product is too large",
       [](GgufBuilder& b) {
         b.tensors[0].dims = {kHuge >> 1, 4};
       }},
      {"inside the 332 bytes of data",
       [](GgufBuilder& b) {
         b.tensors[2].dims = {32 << 20, 1 << 20};
       }},
      {"multiple of 32 for Q8_0, got 65",
       [](GgufBuilder& b) {
         b.tensors[2].dims = {65, 3};
       }},
      {"weight\": type: expected F32, F16 or BF16, got NVFP4", [](GgufBuilder& b) { b.tensors[0].type = 40; }},
      {"weight\": type: expected F32, F16 or BF16, got 77", [](GgufBuilder& b) { b.tensors[0].type = 77; }},
      {"type: expected F32, F16 or BF16, got I32", [](GgufBuilder& b) { b.tensors[0].type = 26; }},
      {"offset: expected a multiple of 64 from 16 on", [](GgufBuilder& b) { b.tensors[1].offset = 0; }},  // overlaps
      {"offset: expected a multiple of 64", [](GgufBuilder& b) { b.tensors[1].offset = 65; }},
      {"from 332 on", [](GgufBuilder& b) { b.tensors[1].offset = 192; }},  // inside the last one
      {"inside the 332 bytes of data", [](GgufBuilder& b) { b.tensors[1].offset = 384; }},
      {"offset: 9223372036854775808 is beyond", [](GgufBuilder& b) { b.tensors[2].offset = kHuge; }},
      {"is beyond the file", [](GgufBuilder& b) { b.tensors[2].offset = ~std::uint64_t{0}; }},
      {"inside the 332 bytes",
       [](GgufBuilder& b) {
         b.tensors[2].type = 77;
         b.tensors[2].offset = 384;
       }},
      {"from 204 on",  // a table inside a tensor whose size is known, before one whose size is not
       [](GgufBuilder& b) {
         b.tensors[2].offset = 0;
         b.tensors[0].offset = 128;
       }},
      {"\"enc.blk.0.attn_rel_b.weight\" is given twice", [](GgufBuilder& b) { b.tensors[1].name = b.tensors[0].name; }},
      {"\"enc.blk.0.attn_rel_b.weight\": missing",
       [](GgufBuilder& b) { b.tensors[0].name = "enc.blk.1.attn_rel_b.weight"; }},
      {"\"enc.blk.0.attn_rel_b.weight\": missing",
       [](GgufBuilder& b) { b.tensors[0].name = "enc.blk.-1.attn_rel_b.weight"; }},
      {"has no enc.blk.N",
       [](GgufBuilder& b) {
         b.tensors[0].name = "a";
         b.tensors[1].name = "b";
       }},
      {"heads: expected 2 as in the model's other tables, got 1",
       [](GgufBuilder& b) {
         b.tensors[1].dims = {1, 4};
       }},
      {"values[0]: expected a finite value", [](GgufBuilder& b) { b.data.replace(0, 4, "\xff\xff\xff\xff"); }},
      {"values[0]: expected a finite value", [](GgufBuilder& b) { b.data.replace(64, 2, std::string("\x00\x7c", 2)); }},
  };
  for (const Case& c : cases) {
    GgufBuilder builder;
    c.break_it(builder);
    const absl::Status status = Read(builder.Build()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

// What is not read may be whatever the format allows, and more of it than is known here.
TEST(GgufTest, WhatIsNotReadMayBeAnything) {
  const auto nested = Raw<std::uint32_t>(9) + Raw<std::uint64_t>(3) +                         // three arrays:
                      Raw<std::uint32_t>(9) + Raw<std::uint64_t>(1) +                         // of an array
                      Raw<std::uint32_t>(8) + Raw<std::uint64_t>(1) + GgufString("deep") +    //   of a string,
                      Raw<std::uint32_t>(7) + Raw<std::uint64_t>(2) + std::string(2, '\1') +  // of bools,
                      Raw<std::uint32_t>(9) + Raw<std::uint64_t>(0);                          // of nothing
  struct Case {
    std::string what;
    std::function<void(GgufBuilder&)> change;
  };
  std::vector<Case> cases = {
      {"nested arrays", [&](GgufBuilder& b) { b.metadata[3].value = nested; }},
      {"an alignment that is no power of two",
       [](GgufBuilder& b) {
         b.metadata[1].value = Raw<std::uint32_t>(64 * 3);
         b.alignment = std::size_t{64} * 3;
         b.tensors[1].offset = 192;
         b.tensors[2].offset = 384;
         b.data = b.data.substr(0, 64) + std::string(128, '\0') + b.data.substr(64, 64) + std::string(128, '\0') +
                  b.data.substr(128);
       }},
      {"an alignment that is a power of two below 8",
       [](GgufBuilder& b) {
         b.metadata[1].value = Raw<std::uint32_t>(4);
         b.alignment = 4;
       }},
      {"an alignment of 1",
       [](GgufBuilder& b) {
         b.metadata[1].value = Raw<std::uint32_t>(1);
         b.alignment = 1;
       }},
      {"an alignment of 64 bits",
       [](GgufBuilder& b) {
         b.metadata[1] = {"general.alignment", 10, Raw<std::uint64_t>(64)};
       }},
      {"space between tensors",
       [](GgufBuilder& b) {
         b.tensors[2].offset = 192;
         b.data.resize(b.data.size() + 64);
       }},
      {"tensors in another order", [](GgufBuilder& b) { std::swap(b.tensors[0], b.tensors[2]); }},
      {"five dimensions",
       [](GgufBuilder& b) {
         b.tensors[2].dims = {32, 1, 2, 1, 3};
       }},
      {"a tensor of nothing", [](GgufBuilder& b) { b.tensors[2].dims = {0}; }},
      {"bytes behind the last tensor", [](GgufBuilder& b) { b.data += "behind"; }},
  };
  for (const std::uint32_t type : {4U, 31U, 33U, 36U, 40U, 41U, 42U, 43U, 1000U, 0xFFFFFFFFU}) {
    cases.push_back({"type " + std::to_string(type), [type](GgufBuilder& b) { b.tensors[2].type = type; }});
    cases.push_back({"type " + std::to_string(type) + " before the tables", [type](GgufBuilder& b) {
                       b.tensors = {{"token_embd.weight", {64, 3}, type, 0},
                                    {"enc.blk.0.attn_rel_b.weight", {2, 4}, 0, 256},
                                    {"dec.blk.0.attn_rel_b.weight", {2, 4}, 1, 320}};
                       b.data = std::string(256, '\7') + GgufBuilder::Data().substr(0, 128);
                     }});
  }
  for (const Case& c : cases) {
    GgufBuilder builder;
    c.change(builder);
    const auto contents = Read(builder.Build());
    ASSERT_TRUE(contents.ok()) << c.what << ": " << contents.status();
    EXPECT_EQ(contents->tables.at("decoder").Value(1, 0), 1.0F) << c.what;
    EXPECT_THAT(std::get<bias::T5Rule>(contents->tables.at("encoder").rule()).values,
                ElementsAre(0, 1, 2, 3, 4, 5, 6, 7))
        << c.what;
  }
}

// Layers share a table where llama.cpp shares it, and not because the others' are missing.
TEST(GgufTest, LayersShareATableOnlyWhereTheFileSaysSo) {
  struct Case {
    std::string architecture;
    std::vector<std::pair<std::string, std::uint32_t>> counts;
    std::vector<int> encoder_layers;  // that have a table, two at most
    std::vector<std::string> tables;  // empty: refused
  };
  const Case cases[] = {
      {"t5", {}, {0}, {"encoder"}},
      {"t5", {{"t5.block_count", 4}}, {0}, {"encoder"}},
      {"t5", {{"t5.block_count", 2}}, {0, 1}, {"encoder.0", "encoder.1"}},
      {"t5", {{"t5.block_count", 4}}, {0, 1}, {}},
      {"t5", {{"t5.block_count", 1}}, {0, 1}, {}},
      {"t5", {{"t5.block_count", 2}}, {1}, {}},
      {"umt5", {{"umt5.block_count", 4}}, {0}, {}},
      {"umt5", {{"umt5.block_count", 1}}, {0}, {"encoder.0"}},
      {"umt5", {}, {0}, {"encoder.0"}},
  };
  for (const Case& c : cases) {
    GgufBuilder builder;
    builder.metadata[0].value = GgufString(c.architecture);
    for (const auto& [key, count] : c.counts) builder.metadata.push_back({key, 4, Raw(count)});
    builder.tensors[0].name = "enc.blk." + std::to_string(c.encoder_layers[0]) + ".attn_rel_b.weight";
    builder.tensors[1].name = c.encoder_layers.size() == 1
                                  ? "other"
                                  : "enc.blk." + std::to_string(c.encoder_layers[1]) + ".attn_rel_b.weight";
    const auto contents = Read(builder.Build());
    std::vector<std::string> names;
    if (contents.ok()) {
      for (const auto& [name, table] : contents->tables) names.push_back(name);
    }
    EXPECT_EQ(names, c.tables) << c.architecture << " " << contents.status();
    EXPECT_EQ(contents.ok(), !c.tables.empty()) << c.architecture;
  }
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string whole = GgufBuilder().Build();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Read(whole.substr(0, size)).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST(GgufTest, LimitsAreNamed) {
  ReadLimits limits;
  limits.max_table_values = 7;
  const absl::Status status = Read(GgufBuilder().Build(), limits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_table_values, 7"));
}

TEST(GgufTest, LongStringsAndArraysAreSkipped) {
  GgufBuilder builder;
  std::string tokens = Raw<std::uint32_t>(8) + Raw<std::uint64_t>(50000);
  for (int i = 0; i < 50000; ++i) tokens += GgufString("token" + std::to_string(i));
  builder.metadata[3].value = tokens;  // more than one block of the cursor
  builder.metadata.push_back({"tokenizer.chat_template", 8, GgufString(std::string(200000, 't'))});
  const auto contents = Read(builder.Build());
  EXPECT_TRUE(contents.ok()) << contents.status();
}

}  // namespace
}  // namespace attnd::model
