#include "model/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
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
constexpr int kMaxNesting = 16;  // of arrays
constexpr std::int64_t kMaxMetadata = 1 << 16;
constexpr std::int64_t kMaxTensors = 1 << 17;
constexpr std::int64_t kDefaultAlignment = 32;
// The shortest encodings: key length, type and one byte; name length, dims, type and offset.
constexpr std::int64_t kMinMetadataBytes = 8 + 4 + 1;
constexpr std::int64_t kMinTensorBytes = 8 + 4 + 4 + 8;

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

// Types of metadata values, by their numbers in the file.
enum ValueType : std::uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Bytes of a value of a fixed-size type; 0 for any other type.
std::int64_t FixedSize(std::uint32_t type) {
  static constexpr std::array<std::int64_t, 13> kSizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < kSizes.size() ? kSizes[type] : 0;
}

// ggml's tensor types, sorted by number: blocks of `elements` in `bytes`. Both are 0 if writers disagree or the layout
// is unknown here. More types may follow: a tensor that is not read may have any number.
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
    {30, "BF16", 1, 2},       {31, "Q4_0_4_4", 0, 0},   {32, "Q4_0_4_8", 0, 0},   {33, "Q4_0_8_8", 0, 0},
    {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {36, "IQ4_NL_4_4", 0, 0}, {37, "IQ4_NL_4_8", 0, 0},
    {38, "IQ4_NL_8_8", 0, 0}, {39, "MXFP4", 32, 17},    {40, "NVFP4", 0, 0},      {41, "Q1_0", 0, 0},
    {42, "Q2_0", 0, 0},
};

const TensorType* FindTensorType(std::uint32_t number) {
  for (const TensorType& type : kTensorTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

std::optional<tensor::DType> DTypeOf(std::string_view type) {
  for (const tensor::DType dtype : {tensor::DType::kF32, tensor::DType::kF16, tensor::DType::kBF16}) {
    if (std::string_view(tensor::NameOf(dtype)) == type) return dtype;
  }
  return std::nullopt;
}

template <typename T>
GgufFile::Value Integer(GgufCursor& cursor) {
  const T value = cursor.Number<T>();
  if (value < 0 || static_cast<std::uint64_t>(value) > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return {};
  }
  return static_cast<std::int64_t>(value);
}

// Skips an array, which may hold arrays.
void SkipArray(GgufCursor& cursor) {
  std::vector<std::uint64_t> open = {1};  // arrays still to come, at each open level
  while (!open.empty() && cursor.status().ok()) {
    if (open.back() == 0) {
      open.pop_back();
      continue;
    }
    --open.back();
    const auto type = cursor.Number<std::uint32_t>();
    const auto count = cursor.Number<std::uint64_t>();
    if (type == kArray) {
      if (open.size() > kMaxNesting) {
        cursor.Fail(Invalid(absl::StrCat("metadata: arrays are nested deeper than ", kMaxNesting)));
      }
      open.push_back(count);
    } else if (type == kString) {
      for (std::uint64_t i = 0; i < count && cursor.status().ok(); ++i) cursor.SkipString();
    } else if (FixedSize(type) != 0) {
      cursor.Skip(count, FixedSize(type));
    } else {
      cursor.Fail(Invalid(absl::StrCat("metadata: unknown type ", type, " of an array's elements")));
    }
  }
}

// A string of up to kMaxText bytes; longer ones (templates, licences) are skipped.
GgufFile::Value ShortString(GgufCursor& cursor) {
  const auto size = cursor.Number<std::uint64_t>();
  if (size <= kMaxText) return cursor.Text(size, kMaxText);
  cursor.Skip(size, 1);
  return {};
}

GgufFile::Value ReadValue(GgufCursor& cursor) {
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
      return {};
    case kBool:
      if (cursor.Number<std::uint8_t>() > 1) cursor.Fail(Invalid("metadata: expected a bool of 0 or 1"));
      return {};
    case kF32:
    case kF64:
      cursor.Skip(1, FixedSize(type));
      return {};
    default:
      cursor.Fail(Invalid(absl::StrCat("metadata: unknown type ", type)));
      return {};
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

// Bytes of a tensor. Errors: INVALID_ARGUMENT if a row is not a whole number of blocks, or the size overflows.
absl::StatusOr<std::int64_t> SizeOf(const GgufTensor& tensor, const TensorType& type) {
  const std::int64_t row = tensor.dims.empty() ? 1 : tensor.dims.front();
  if (row % type.elements != 0) {
    return Invalid(
        absl::StrCat("dims: expected rows of a multiple of ", type.elements, " for ", type.name, ", got ", row));
  }
  const std::optional<std::int64_t> size = tensor::CheckedProduct({tensor.elements / type.elements, type.bytes});
  if (!size) return Invalid("dims: their product is too large");
  return *size;
}

// Reads one tensor. Its offset counts from the beginning of the data.
absl::StatusOr<GgufTensor> ReadTensor(GgufCursor& cursor) {
  GgufTensor tensor;
  const auto dim_count = cursor.Number<std::uint32_t>();
  if (dim_count > cursor.remaining() / 8) {
    return Invalid(absl::StrCat("dims: expected at most ", cursor.remaining() / 8, ", got ", dim_count));
  }
  for (std::uint32_t i = 0; i < dim_count; ++i) {
    const auto dim = cursor.Number<std::uint64_t>();
    if (dim > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) return Invalid("dims: too large");
    tensor.dims.push_back(static_cast<std::int64_t>(dim));
  }
  const auto type_number = cursor.Number<std::uint32_t>();
  const auto offset = cursor.Number<std::uint64_t>();
  if (!cursor.status().ok()) return cursor.status();

  const TensorType* type = FindTensorType(type_number);
  tensor.type = type == nullptr ? absl::StrCat(type_number) : type->name;
  tensor.dtype = DTypeOf(tensor.type);
  const std::optional<std::int64_t> elements = tensor::CheckedProduct(tensor.dims);
  if (!elements) return Invalid("dims: their product is too large");
  tensor.elements = *elements;
  if (type != nullptr && type->bytes != 0) {
    const absl::StatusOr<std::int64_t> size = SizeOf(tensor, *type);
    if (!size.ok()) return size.status();
    tensor.size = *size;
  }
  if (offset > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return Invalid(absl::StrCat("offset: ", offset, " is beyond the file"));
  }
  tensor.offset = static_cast<std::int64_t>(offset);
  return tensor;
}

// `value` rounded up to a multiple of `alignment`; nullopt if that does not fit.
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
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.String(kMaxKey);
    Value value = ReadValue(cursor);
    if (!cursor.status().ok()) return cursor.status();
    if (!metadata_.emplace(key, std::move(value)).second) {
      return Invalid(absl::StrCat("metadata: key ", Quoted(key), " is given twice"));
    }
  }
  return absl::OkStatus();
}

// The format requires a multiple of 8, ggml a power of two; files have either.
absl::StatusOr<std::int64_t> GgufFile::Alignment() const {
  const auto found = metadata_.find("general.alignment");
  if (found == metadata_.end()) return kDefaultAlignment;
  const std::int64_t* alignment = std::get_if<std::int64_t>(&found->second);
  if (alignment != nullptr && *alignment > 0 &&
      (*alignment % 8 == 0 || std::has_single_bit(static_cast<std::uint64_t>(*alignment)))) {
    return *alignment;
  }
  return Invalid("general.alignment: expected a multiple of 8, or a power of two");
}

absl::Status GgufFile::ReadTensors(GgufCursor& cursor, std::uint64_t count, std::int64_t file_size) {
  const absl::StatusOr<std::int64_t> alignment = Alignment();
  if (!alignment.ok()) return alignment.status();
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string name = cursor.String(kMaxTensorName);
    absl::StatusOr<GgufTensor> tensor = ReadTensor(cursor);
    if (!cursor.status().ok()) return cursor.status();
    if (!tensor.ok()) return Invalid(absl::StrCat("tensor ", Quoted(name), ": ", tensor.status().message()));
    if (!tensors_.emplace(name, *std::move(tensor)).second) {
      return Invalid(absl::StrCat("tensor ", Quoted(name), " is given twice"));
    }
  }
  if (count == 0) return absl::OkStatus();
  const std::optional<std::int64_t> data_begin = AlignUp(cursor.position(), *alignment);
  if (!data_begin || *data_begin > file_size) {
    return Invalid(absl::StrCat("the file ends before its tensors: expected them from byte ", data_begin.value_or(-1),
                                " on, got ", file_size, " bytes"));
  }
  if (absl::Status ranges = CheckRanges(file_size - *data_begin, *alignment); !ranges.ok()) return ranges;
  for (auto& [name, tensor] : tensors_) tensor.offset += *data_begin;
  return absl::OkStatus();
}

// Each tensor must begin aligned, begin no earlier than the previous one ends, and end inside the data. A tensor of
// unknown size ends where the next one begins, or at the end of the data.
absl::Status GgufFile::CheckRanges(std::int64_t data_size, std::int64_t alignment) const {
  using Entry = std::pair<const std::string, GgufTensor>;
  std::vector<const Entry*> by_offset;
  by_offset.reserve(tensors_.size());
  for (const Entry& entry : tensors_) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.offset, a->second.size) < std::pair(b->second.offset, b->second.size);
  });
  std::int64_t end = 0;
  for (const Entry* entry : by_offset) {
    const auto& [name, tensor] = *entry;
    const std::int64_t size = tensor.size.value_or(0);
    if (tensor.offset % alignment != 0 || tensor.offset < end || size > data_size || tensor.offset > data_size - size) {
      return Invalid(absl::StrCat("tensor ", Quoted(name), ": offset: expected a multiple of ", alignment, " from ",
                                  end, " on (the end of the one before it) and ", size, " bytes from there inside the ",
                                  data_size, " bytes of data, got ", tensor.offset));
    }
    end = tensor.offset + size;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> GgufFile::ReadFloats(const GgufTensor& tensor) const {
  if (!tensor.dtype) return Invalid(absl::StrCat("type: expected F32, F16 or BF16, got ", tensor.type));
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.size.value_or(0)));
  if (absl::Status read = source_->ReadAt(tensor.offset, absl::MakeSpan(bytes)); !read.ok()) return read;
  std::vector<float> floats(static_cast<std::size_t>(tensor.elements));
  tensor::ConvertToFloat(*tensor.dtype, bytes, absl::MakeSpan(floats));
  return floats;
}

}  // namespace attnd::model
