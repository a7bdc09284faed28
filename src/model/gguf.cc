#include "model/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/gguf_cursor.h"
#include "model/names.h"
#include "tensor/checked_size.h"
#include "tensor/convert.h"

namespace attnd::model {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::int64_t kMaxKey = 65535;
constexpr std::int64_t kMaxTensorName = 1024;
constexpr std::int64_t kMaxText = 1024;
constexpr std::uint32_t kMaxDims = 4;
constexpr std::int64_t kMaxMetadata = 1 << 16;
constexpr std::int64_t kMaxTensors = 1 << 17;
constexpr std::int64_t kDefaultAlignment = 32;
// The shortest encodings: key length, type and one byte; name length, dims, type and offset.
constexpr std::int64_t kMinMetadataBytes = 8 + 4 + 1;
constexpr std::int64_t kMinTensorBytes = 8 + 4 + 4 + 8;

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

// Types of metadata values, by their number in the file.
enum ValueType : std::uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Bytes of a value of fixed size; 0 for any other type.
std::int64_t FixedSize(std::uint32_t type) {
  static constexpr std::array<std::int64_t, 13> kSizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < kSizes.size() ? kSizes[type] : 0;
}

// ggml's tensor types: blocks of `elements` in `bytes`. Sorted by number.
struct TensorType {
  std::uint32_t number;
  const char* name;
  std::int64_t elements;
  std::int64_t bytes;
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
};

const TensorType* FindTensorType(std::uint32_t number) {
  for (const TensorType& type : kTensorTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

std::optional<tensor::DType> DTypeOf(const TensorType& type) {
  for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kF16, tensor::DType::kBF16}) {
    if (std::string_view(tensor::NameOf(dtype)) == type.name) return dtype;
  }
  return std::nullopt;
}

template <typename T>
std::optional<GgufFile::Value> Integer(GgufCursor& cursor) {
  const T value = cursor.Number<T>();
  if (value < 0 || static_cast<std::uint64_t>(value) > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(value);
}

void SkipArray(GgufCursor& cursor) {
  const auto type = cursor.Number<std::uint32_t>();
  const auto count = cursor.Number<std::uint64_t>();
  if (type != kString && FixedSize(type) == 0) {
    return cursor.Fail(Invalid(absl::StrCat("metadata: unknown type ", type, " of an array's elements")));
  }
  if (type != kString) return cursor.Skip(count, FixedSize(type));
  for (std::uint64_t i = 0; i < count && cursor.status().ok(); ++i) cursor.SkipString();
}

// A string of up to kMaxText bytes; longer ones (templates, licences) are skipped.
std::optional<GgufFile::Value> ShortString(GgufCursor& cursor) {
  const auto size = cursor.Number<std::uint64_t>();
  if (size <= kMaxText) return cursor.Text(size, kMaxText);
  cursor.Skip(size, 1);
  return std::nullopt;
}

// One value; nullopt if it is none that callers ask for.
std::optional<GgufFile::Value> ReadValue(GgufCursor& cursor) {
  const auto type = cursor.Number<std::uint32_t>();
  switch (type) {
    case kU8:
      return Integer<std::uint8_t>(cursor);
    case kI8:
      return Integer<std::int8_t>(cursor);
    case kU16:
      return Integer<std::uint16_t>(cursor);
    case kI16:
      return Integer<std::int16_t>(cursor);
    case kU32:
      return Integer<std::uint32_t>(cursor);
    case kI32:
      return Integer<std::int32_t>(cursor);
    case kU64:
      return Integer<std::uint64_t>(cursor);
    case kI64:
      return Integer<std::int64_t>(cursor);
    case kString:
      return ShortString(cursor);
    case kArray:
      SkipArray(cursor);
      return std::nullopt;
    case kBool:
      if (cursor.Number<std::uint8_t>() > 1) cursor.Fail(Invalid("metadata: expected a bool of 0 or 1"));
      return std::nullopt;
    case kF32:
    case kF64:
      cursor.Skip(1, FixedSize(type));
      return std::nullopt;
    default:
      cursor.Fail(Invalid(absl::StrCat("metadata: unknown type ", type)));
      return std::nullopt;
  }
}

absl::Status CheckStart(GgufCursor& cursor) {
  const auto magic = cursor.Number<std::uint32_t>();
  const auto version = cursor.Number<std::uint32_t>();
  if (!cursor.status().ok()) return cursor.status();
  if (magic != kMagic) return Invalid("magic: expected GGUF");
  if (version == 2 || version == 3) return absl::OkStatus();
  if (version == 0x02000000 || version == 0x03000000) return Invalid("version: the file is big-endian, not supported");
  return Invalid(absl::StrCat("version: expected 2 or 3, got ", version));
}

absl::Status CheckCount(absl::string_view what, std::uint64_t count, std::int64_t max, std::int64_t least_bytes,
                        const GgufCursor& cursor) {
  const std::int64_t most = std::min(max, cursor.remaining() / least_bytes);
  if (count <= static_cast<std::uint64_t>(most)) return absl::OkStatus();
  return Invalid(absl::StrCat(what, " count: expected at most ", most, " in a file of this size, got ", count));
}

// One tensor, its offset still counted from the beginning of the data.
absl::StatusOr<GgufTensor> ReadTensor(GgufCursor& cursor) {
  GgufTensor tensor;
  const auto dim_count = cursor.Number<std::uint32_t>();
  if (dim_count > kMaxDims) return Invalid(absl::StrCat("dims: expected at most ", kMaxDims, ", got ", dim_count));
  for (std::uint32_t i = 0; i < dim_count; ++i) {
    const auto dim = cursor.Number<std::uint64_t>();
    if (dim > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) return Invalid("dims: too large");
    tensor.dims.push_back(static_cast<std::int64_t>(dim));
  }
  const auto type_number = cursor.Number<std::uint32_t>();
  const auto offset = cursor.Number<std::uint64_t>();
  if (!cursor.status().ok()) return cursor.status();

  const TensorType* type = FindTensorType(type_number);
  if (type == nullptr) return Invalid(absl::StrCat("unknown type ", type_number));
  tensor.type = type->name;
  tensor.dtype = DTypeOf(*type);
  const std::int64_t row = tensor.dims.empty() ? 1 : tensor.dims.front();
  const std::optional<std::int64_t> elements = tensor::CheckedProduct(tensor.dims);
  const std::optional<std::int64_t> size =
      elements ? tensor::CheckedProduct({*elements / type->elements, type->bytes}) : std::nullopt;
  if (!size) return Invalid("dims: their product is too large");
  if (row % type->elements != 0) {
    return Invalid(
        absl::StrCat("dims: expected rows of a multiple of ", type->elements, " for ", type->name, ", got ", row));
  }
  tensor.elements = *elements;
  tensor.size = *size;
  // One that does not fit a signed number is beyond any file; the caller compares it with what it expects.
  tensor.offset =
      offset > std::uint64_t{std::numeric_limits<std::int64_t>::max()} ? -1 : static_cast<std::int64_t>(offset);
  return tensor;
}

// The smallest multiple of `alignment` from `value` on; nullopt if it does not fit.
std::optional<std::int64_t> AlignUp(std::int64_t value, std::int64_t alignment) {
  const std::int64_t missing = (alignment - value % alignment) % alignment;
  if (value > std::numeric_limits<std::int64_t>::max() - missing) return std::nullopt;
  return value + missing;
}

}  // namespace

absl::StatusOr<GgufFile> GgufFile::Open(std::unique_ptr<files::ByteSource> source) {
  GgufCursor cursor(*source);
  if (absl::Status start = CheckStart(cursor); !start.ok()) return start;
  const auto tensor_count = cursor.Number<std::uint64_t>();
  const auto metadata_count = cursor.Number<std::uint64_t>();
  absl::Status counts = CheckCount("metadata", metadata_count, kMaxMetadata, kMinMetadataBytes, cursor);
  if (counts.ok()) counts = CheckCount("tensor", tensor_count, kMaxTensors, kMinTensorBytes, cursor);
  if (!counts.ok()) return counts;

  GgufFile file;
  if (absl::Status read = file.ReadMetadata(cursor, metadata_count); !read.ok()) return read;
  if (absl::Status read = file.ReadTensors(cursor, tensor_count, source->size()); !read.ok()) return read;
  file.source_ = std::move(source);
  return file;
}

absl::Status GgufFile::ReadMetadata(GgufCursor& cursor, std::uint64_t count) {
  std::set<std::string> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.String(kMaxKey);
    std::optional<Value> value = ReadValue(cursor);
    if (!cursor.status().ok()) return cursor.status();
    if (!keys.insert(key).second) return Invalid(absl::StrCat("metadata: key ", Quoted(key), " is given twice"));
    if (value) metadata_.emplace(std::move(key), *std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> GgufFile::Alignment() const {
  const auto found = metadata_.find("general.alignment");
  if (found == metadata_.end()) return kDefaultAlignment;
  const std::int64_t* alignment = std::get_if<std::int64_t>(&found->second);
  if (alignment != nullptr && *alignment <= (1 << 20) && std::has_single_bit(static_cast<std::uint64_t>(*alignment))) {
    return *alignment;
  }
  return Invalid("general.alignment: expected a power of two up to 2^20");
}

absl::Status GgufFile::ReadTensors(GgufCursor& cursor, std::uint64_t count, std::int64_t file_size) {
  const absl::StatusOr<std::int64_t> alignment = Alignment();
  if (!alignment.ok()) return alignment.status();
  std::int64_t data_end = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string name = cursor.String(kMaxTensorName);
    absl::StatusOr<GgufTensor> tensor = ReadTensor(cursor);
    if (!cursor.status().ok()) return cursor.status();
    if (!tensor.ok()) return Invalid(absl::StrCat("tensor ", Quoted(name), ": ", tensor.status().message()));
    const std::optional<std::int64_t> expected = AlignUp(data_end, *alignment);
    if (tensor->offset != expected || *expected > file_size - tensor->size) {
      return Invalid(absl::StrCat("tensor ", Quoted(name), ": offset: expected ", expected.value_or(-1),
                                  " (the aligned end of the one before it) and ", tensor->size,
                                  " bytes from there inside the file, got ", tensor->offset));
    }
    data_end = *expected + tensor->size;
    if (!tensors_.emplace(name, *std::move(tensor)).second) {
      return Invalid(absl::StrCat("tensor ", Quoted(name), " is given twice"));
    }
  }
  const std::optional<std::int64_t> data_begin = AlignUp(cursor.position(), *alignment);
  if (count > 0 && (!data_begin || *data_begin > file_size - data_end)) {
    return Invalid(absl::StrCat("the file ends before its tensors: expected ", data_begin.value_or(-1), " + ", data_end,
                                " bytes, got ", file_size));
  }
  for (auto& [name, tensor] : tensors_) tensor.offset += *data_begin;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> GgufFile::ReadFloats(const GgufTensor& tensor) const {
  if (!tensor.dtype) return Invalid(absl::StrCat("type: expected F32, F16 or BF16, got ", tensor.type));
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.size));
  if (absl::Status read = source_->ReadAt(tensor.offset, absl::MakeSpan(bytes)); !read.ok()) return read;
  std::vector<float> floats(static_cast<std::size_t>(tensor.elements));
  tensor::ConvertToFloat(*tensor.dtype, bytes, absl::MakeSpan(floats));
  return floats;
}

}  // namespace attnd::model
