#include "files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attnd::files {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string File(std::uint64_t header_length, const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  std::memcpy(length.data(), &header_length, sizeof(header_length));
  return length + header + data;
}

std::string File(const std::string& header, const std::string& data) { return File(header.size(), header, data); }

// Three tensors of 8, 4 and 0 bytes.
constexpr char kHeader[] = R"({"__metadata__":{"made":"by hand"},)"
                           R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"I32","shape":[],"data_offsets":[8,12]},)"
                           R"("empty":{"dtype":"BF16","shape":[3,0],"data_offsets":[12,12]}}  )";

std::string ValidData() {
  const float floats[] = {1.5F, -2.0F};
  std::string data(12, '\7');
  std::memcpy(data.data(), floats, sizeof(floats));
  return data;
}

TEST(SafetensorsTest, ReadsNamesShapesMetadataAndBytes) {
  const std::string bytes = File(kHeader, ValidData());
  const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 3U);
  EXPECT_EQ(file->metadata().at("made"), "by hand");
  EXPECT_EQ(file->Find("c"), nullptr);

  const StoredTensor* a = file->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_THAT(a->shape, ElementsAre(1, 2));
  EXPECT_EQ(a->size, 8);
  const auto floats = file->ReadFloats(*a);
  ASSERT_TRUE(floats.ok()) << floats.status();
  EXPECT_THAT(*floats, ElementsAre(1.5F, -2.0F));

  const StoredTensor* b = file->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, "I32");
  EXPECT_EQ(b->elements, 1);
  EXPECT_THAT(std::string(file->ReadFloats(*b).status().message()), HasSubstr("got I32"));
  std::byte last[2];
  ASSERT_TRUE(file->Read(*b, 2, absl::MakeSpan(last)).ok());
  EXPECT_EQ(last[1], std::byte{7});
  EXPECT_EQ(file->Read(*b, 3, absl::MakeSpan(last)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(file->Read(*b, -1, absl::MakeSpan(last)).code(), absl::StatusCode::kOutOfRange);

  const auto none = file->ReadFloats(*file->Find("empty"));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->empty());
}

// What is not read may have any dtype, further fields, or metadata that is null.
TEST(SafetensorsTest, WhatIsNotReadMayBeAnything) {
  struct Case {
    std::string from;
    std::string to;
  };
  const Case cases[] = {
      {R"("I32")", R"("F31")"},
      {R"("dtype":"I32","shape":[])", R"("dtype":"F8_E4M3FNUZ","shape":[4])"},
      {R"("dtype":"I32","shape":[])", R"("dtype":"F8_E5M2FNUZ","shape":[2,2])"},
      {R"("dtype":"I32","shape":[])", R"("dtype":"F4","shape":[8])"},
      {R"("dtype":"I32","shape":[])", R"("dtype":"F6_E3M2","shape":[5],"data_offsets_of":{"x":[[[[1]]]]})"},
      {R"({"made":"by hand"})", "null"},
      {R"({"made":"by hand"})", "{}"},
  };
  for (const Case& c : cases) {
    std::string header = kHeader;
    header.replace(header.find(c.from), c.from.size(), c.to);
    const bool six_bits = c.to.find("F6") != std::string::npos;
    if (six_bits) header.replace(header.find("[5]"), 3, "[16]").replace(header.find("[8,12]"), 6, "[8,20]");
    if (six_bits) header.replace(header.find("[12,12]"), 7, "[20,20]");
    const std::string bytes = File(header, ValidData() + std::string(six_bits ? 8 : 0, '\0'));
    const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
    ASSERT_TRUE(file.ok()) << c.to << ": " << file.status();
    const auto floats = file->ReadFloats(*file->Find("a"));
    ASSERT_TRUE(floats.ok()) << floats.status();
    EXPECT_THAT(*floats, ElementsAre(1.5F, -2.0F));
  }
}

// Each case breaks one thing of the valid file: the first `from` in the header becomes `to`.
TEST(SafetensorsTest, RefusesABrokenHeader) {
  struct Case {
    std::string from;
    std::string to;
    std::string says;
  };
  const Case cases[] = {
      {R"("by hand")", "7", "expected a string"},
      {R"({"made":"by hand"})", "[]", "__metadata__"},
      {R"("F32")", "32", "dtype: expected a string"},
      {R"("F32")", R"("F16")", "expected 4 bytes"},
      {R"("F32")", R"("F4")", "expected 1 bytes"},
      {"[1,2]", "[1,3]", "expected 12 bytes"},
      {"[1,2]", "[-1,2]", "integers from 0 on"},
      {"[1,2]", "[1.5,2]", "integers from 0 on"},
      {"[1,2]", "\"12\"", "integers from 0 on"},
      {"[1,2]", "[4294967296,4294967296]", "too large"},
      {"[1,2]", "[2305843009213693952,1]", "too large"},
      {"[1,2]", "[18446744073709551616]", "integers from 0 on"},
      {"[1,2]", "[9223372036854775808]", "integers from 0 on"},
      {"[0,8]", "[0]", "expected two integers"},
      {"[0,8]", "[8,0]", "expected a range"},
      {R"("dtype":"F32","shape":[1,2],"data_offsets":[0,8])", R"("dtype":"F99","shape":[1,2],"data_offsets":[0,7])",
       "begin at 7"},
      {R"("dtype":"F32","shape":[1,2],"data_offsets":[0,8])",
       R"("dtype":"F8_E4M3FNUZ","shape":[1,2],"data_offsets":[0,8])", "expected 2 bytes"},
      {R"("dtype":"F32","shape":[1,2],"data_offsets":[0,8])", R"("dtype":"F6_E2M3","shape":[1,2],"data_offsets":[0,8])",
       "no whole number of bytes"},
      {"[0,8]", "[0,8,9]", "expected two integers"},
      {"[0,8]", "[-8,0]", "expected two integers"},
      {"[8,12]", "[4,8]", "begin at 8"},      // overlaps
      {"[8,12]", "[9,13]", "begin at 8"},     // leaves a hole
      {"[8,12]", "[0,4]", "begin at"},        // lies inside another
      {"[12,12]", "[13,13]", "begin at 12"},  // beyond the end
      {R"("b":{)", R"("a":{)", R"(key "a" is given twice)"},
      {R"("dtype":"F32",)", "", "expected dtype, shape and data_offsets"},
      {R"("shape":[1,2],)", "", "expected dtype, shape and data_offsets"},
      {R"("dtype":"F32",)", R"("dtype":"F32","dtype":"F32",)", R"(key "dtype" is given twice)"},
      {R"({"dtype":"I32","shape":[],"data_offsets":[8,12]})", "[]", "expected an object"},
      {R"("by hand")", std::string(70, '[') + std::string(70, ']'), "nested deeper"},
      {"by hand", "by \xff hand", "UTF-8"},
      {"{", "[", "begin with {"},
      {"}}  ", "}} x", "JSON"},
      {"}}  ", "}", "JSON"},
  };
  for (const Case& c : cases) {
    std::string header = kHeader;
    const std::size_t at = header.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    header.replace(at, c.from.size(), c.to);
    const std::string bytes = File(header, ValidData());
    const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << c.to;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(c.says)) << c.to;
  }
}

TEST(SafetensorsTest, RefusesALyingHeaderLength) {
  const std::string header = kHeader;
  const std::uint64_t rest = header.size() + 12;
  for (const std::uint64_t length : {rest + 1, std::uint64_t{0}, std::uint64_t{1} << 26, std::uint64_t{1} << 63,
                                     (std::uint64_t{1} << 63) - 8, ~std::uint64_t{0}, header.size() - 4}) {
    const std::string bytes = File(length, header, ValidData());
    EXPECT_EQ(SafetensorsFile::Open(OpenMemory(Bytes(bytes))).status().code(), absl::StatusCode::kInvalidArgument)
        << length;
  }
}

TEST(SafetensorsTest, RefusesEveryTruncationAndAnyTail) {
  const std::string bytes = File(kHeader, ValidData());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    EXPECT_FALSE(SafetensorsFile::Open(OpenMemory(Bytes(cut))).ok()) << size;
  }
  const std::string longer = bytes + "x";
  EXPECT_THAT(std::string(SafetensorsFile::Open(OpenMemory(Bytes(longer))).status().message()),
              HasSubstr("which has 13"));
}

// A read stays inside its tensor, whatever follows in the file.
TEST(SafetensorsTest, ReadsEndWithTheTensor) {
  const std::string bytes = File(kHeader, ValidData());
  const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
  ASSERT_TRUE(file.ok()) << file.status();
  for (const std::string name : {"a", "b", "empty"}) {
    const StoredTensor& tensor = *file->Find(name);
    for (std::int64_t first = -1; first <= tensor.size + 1; ++first) {
      for (std::int64_t count = 0; count <= tensor.size + 2; ++count) {
        std::vector<std::byte> out(static_cast<std::size_t>(count));
        const absl::Status read = file->Read(tensor, first, absl::MakeSpan(out));
        EXPECT_EQ(read.ok(), first >= 0 && first + count <= tensor.size) << name << " " << first << " + " << count;
        EXPECT_TRUE(read.ok() || absl::IsOutOfRange(read)) << read;
      }
    }
  }
}

TEST(SafetensorsTest, LimitsOfTheHeaderAreExact) {
  std::string header = "{}" + std::string(static_cast<std::size_t>(SafetensorsFile::kMaxHeaderBytes) - 2, ' ');
  const auto open = [&] {
    const std::string bytes = File(header, "");
    return SafetensorsFile::Open(OpenMemory(Bytes(bytes))).status();
  };
  EXPECT_TRUE(open().ok()) << open();
  header.push_back(' ');
  EXPECT_EQ(open().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(open().message()), HasSubstr("header length: expected at most"));
  for (const std::size_t depth : {64U, 65U}) {
    header = R"({"t": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0], "x": )" + std::string(depth - 2, '[') +
             std::string(depth - 2, ']') + "}}";
    EXPECT_EQ(open().ok(), depth == 64) << open();
  }
}

TEST(SafetensorsTest, AFileWithoutTensorsIsValid) {
  const std::string bytes = File("{}", "");
  const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->tensors().empty());
}

TEST(SafetensorsTest, ListsEveryDtypeOfTheFormat) {
  for (const char* dtype :
       {"BOOL", "U8",  "I8",  "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16",     "BF16",
        "I32",  "U32", "F32", "I64",     "U64",     "F64",     "C64", "F4",  "F6_E2M3", "F6_E3M2"}) {
    const int size = *SafetensorsBits(dtype);  // bytes of 8 elements
    const std::string header =
        absl::StrCat(R"({"t":{"dtype":")", dtype, R"(","shape":[2,4],"data_offsets":[0,)", size, "]}}");
    const std::string bytes = File(header, std::string(static_cast<std::size_t>(size), '\0'));
    const auto file = SafetensorsFile::Open(OpenMemory(Bytes(bytes)));
    ASSERT_TRUE(file.ok()) << dtype << file.status();
    EXPECT_EQ(file->Find("t")->dtype, dtype);
  }
}

TEST(ByteSourceTest, OpensRegularFilesOnly) {
  EXPECT_EQ(OpenFile("/nonexistent/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenFile("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenFile("/").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace attnd::files
