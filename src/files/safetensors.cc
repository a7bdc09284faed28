#include "files/safetensors.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "files/strict_json.h"
#include "nlohmann/json.hpp"
#include "tensor/checked_size.h"
#include "tensor/convert.h"
#include "tensor/dtype.h"

namespace attnd::files {
namespace {

using Json = nlohmann::json;

// {name: {dtype, shape: [...], data_offsets: [...]}} is three levels deep; a tensor may have other fields of any kind.
constexpr int kMaxDepth = 64;
constexpr std::int64_t kLengthBytes = 8;

absl::Status Invalid(absl::string_view tensor, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor, "\": ", problem));
}

// A JSON number as a count; nullopt if it is not an integer in [0, 2^63).
std::optional<std::int64_t> Count(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const std::uint64_t count = value.get<std::uint64_t>();
  if (count > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(count);
}

std::optional<std::vector<std::int64_t>> Counts(const Json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<std::int64_t> counts;
  counts.reserve(value.size());
  for (const Json& element : value) {
    const std::optional<std::int64_t> count = Count(element);
    if (!count) return std::nullopt;
    counts.push_back(*count);
  }
  return counts;
}

// Bytes of `elements` elements of `bits` bits; nullopt if they overflow or are not a whole number of bytes.
std::optional<std::int64_t> BytesOf(std::int64_t elements, int bits) {
  const std::optional<std::int64_t> all_bits = tensor::CheckedProduct({elements, bits});
  if (!all_bits || *all_bits % 8 != 0) return std::nullopt;
  return *all_bits / 8;
}

// One entry of the header. The result's offset counts from the end of the header.
absl::StatusOr<StoredTensor> ParseTensor(const std::string& name, const Json& entry) {
  if (!entry.is_object()) return Invalid(name, "expected an object");
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype == entry.end() || shape == entry.end() || offsets == entry.end()) {
    return Invalid(name, "expected dtype, shape and data_offsets");
  }
  StoredTensor tensor;
  if (!dtype->is_string()) return Invalid(name, "dtype: expected a string");
  tensor.dtype = dtype->get<std::string>();
  std::optional<std::vector<std::int64_t>> dims = Counts(*shape);
  if (!dims) return Invalid(name, "shape: expected a list of integers from 0 on");
  tensor.shape = std::move(*dims);
  const std::optional<std::int64_t> elements = tensor::CheckedProduct(tensor.shape);
  if (!elements) return Invalid(name, "shape: the product of the dims is too large");
  tensor.elements = *elements;

  const std::optional<std::vector<std::int64_t>> range = Counts(*offsets);
  if (!range || range->size() != 2) return Invalid(name, "data_offsets: expected two integers from 0 on");
  const std::int64_t begin = (*range)[0];
  const std::int64_t end = (*range)[1];
  if (end < begin) return Invalid(name, absl::StrCat("data_offsets: expected a range, got ", begin, " to ", end));
  // For an unknown dtype, the range cannot be checked against the shape.
  if (const std::optional<int> bits = SafetensorsBits(tensor.dtype)) {
    const std::optional<std::int64_t> bytes = BytesOf(*elements, *bits);
    if (!bytes) return Invalid(name, "shape: the product of the dims is too large, or no whole number of bytes");
    if (end - begin != *bytes) {
      return Invalid(name, absl::StrCat("data_offsets: expected ", *bytes, " bytes for its shape and dtype, got ",
                                        begin, " to ", end));
    }
  }
  tensor.size = end - begin;
  tensor.offset = begin;
  return tensor;
}

absl::StatusOr<std::map<std::string, std::string, std::less<>>> ParseMetadata(const Json& object) {
  std::map<std::string, std::string, std::less<>> metadata;
  if (object.is_null()) return metadata;  // as in the format's own reader
  if (!object.is_object()) return absl::InvalidArgumentError("__metadata__: expected an object of strings");
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("__metadata__: \"", key, "\": expected a string"));
    }
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// The tensors must cover the data exactly: no gap, no overlap, nothing after the last one.
absl::Status CheckCover(const std::map<std::string, StoredTensor, std::less<>>& tensors, std::int64_t data_bytes) {
  struct Piece {
    std::int64_t begin;
    std::int64_t end;
    const std::string* name;
  };
  std::vector<Piece> pieces;
  pieces.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) pieces.push_back({tensor.offset, tensor.offset + tensor.size, &name});
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::int64_t covered = 0;
  for (const Piece& piece : pieces) {
    if (piece.begin != covered) {
      return Invalid(*piece.name, absl::StrCat("data_offsets: expected to begin at ", covered,
                                               ", where the tensor before it ends, got ", piece.begin));
    }
    if (piece.end > data_bytes) {
      return Invalid(*piece.name, absl::StrCat("data_offsets: ends at ", piece.end, " of ", data_bytes, " bytes"));
    }
    covered = piece.end;
  }
  if (covered == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the tensors end at byte ", covered, " of the data, which has ", data_bytes));
}

// The header's text.
absl::StatusOr<std::string> ReadHeader(const ByteSource& source) {
  std::uint64_t length = 0;
  if (source.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("expected a header length of 8 bytes, got ", source.size()));
  }
  absl::Span<std::byte> length_bytes(reinterpret_cast<std::byte*>(&length), sizeof(length));
  if (absl::Status read = source.ReadAt(0, length_bytes); !read.ok()) return read;
  const auto rest = static_cast<std::uint64_t>(source.size() - kLengthBytes);
  if (length > rest || length > static_cast<std::uint64_t>(SafetensorsFile::kMaxHeaderBytes)) {
    return absl::InvalidArgumentError(absl::StrCat("header length: expected at most ", rest, " (the file) and ",
                                                   SafetensorsFile::kMaxHeaderBytes, ", got ", length));
  }
  std::string header(static_cast<std::size_t>(length), '\0');
  absl::Span<std::byte> header_bytes(reinterpret_cast<std::byte*>(header.data()), header.size());
  if (absl::Status read = source.ReadAt(kLengthBytes, header_bytes); !read.ok()) return read;
  if (header.empty() || header.front() != '{') return absl::InvalidArgumentError("header: expected to begin with {");
  return header;
}

}  // namespace

std::optional<int> SafetensorsBits(std::string_view dtype) {
  static constexpr std::pair<std::string_view, int> kBits[] = {
      {"BOOL", 8},  {"U8", 8},      {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8}, {"F8_E8M0", 8},
      {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"I16", 16},        {"U16", 16},    {"F16", 16},
      {"BF16", 16}, {"I32", 32},    {"U32", 32},        {"F32", 32},        {"I64", 64},    {"U64", 64},
      {"F64", 64},  {"C64", 64},    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
  };
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) return bits;
  }
  return std::nullopt;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(std::unique_ptr<ByteSource> source) {
  absl::StatusOr<std::string> header = ReadHeader(*source);
  if (!header.ok()) return header.status();
  absl::StatusOr<JsonDocument> json = ParseStrictJson(*header, kMaxDepth);
  if (!json.ok()) return absl::InvalidArgumentError(absl::StrCat("header: ", json.status().message()));

  SafetensorsFile file;
  for (const auto& [name, entry] : json->items()) {
    if (name == "__metadata__") {
      auto metadata = ParseMetadata(entry);
      if (!metadata.ok()) return metadata.status();
      file.metadata_ = *std::move(metadata);
      continue;
    }
    absl::StatusOr<StoredTensor> tensor = ParseTensor(name, entry);
    if (!tensor.ok()) return tensor.status();
    file.tensors_.emplace(name, *std::move(tensor));
  }
  const std::int64_t data_begin = kLengthBytes + static_cast<std::int64_t>(header->size());
  if (absl::Status cover = CheckCover(file.tensors_, source->size() - data_begin); !cover.ok()) return cover;
  for (auto& [name, tensor] : file.tensors_) tensor.offset += data_begin;
  file.source_ = std::move(source);
  return file;
}

const StoredTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::Status SafetensorsFile::Read(const StoredTensor& tensor, std::int64_t first, absl::Span<std::byte> out) const {
  if (first < 0 || first > tensor.size || out.size() > static_cast<std::size_t>(tensor.size - first)) {
    return absl::OutOfRangeError(
        absl::StrCat("bytes ", first, " to ", first, " + ", out.size(), " of a tensor of ", tensor.size));
  }
  return source_->ReadAt(tensor.offset + first, out);
}

absl::StatusOr<std::vector<float>> SafetensorsFile::ReadFloats(const StoredTensor& tensor) const {
  const std::optional<tensor::DType> dtype = tensor::DTypeFromName(tensor.dtype);
  if (!dtype) return absl::InvalidArgumentError(absl::StrCat("dtype: expected F32, F16 or BF16, got ", tensor.dtype));
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.size));
  if (absl::Status read = Read(tensor, 0, absl::MakeSpan(bytes)); !read.ok()) return read;
  std::vector<float> floats(static_cast<std::size_t>(tensor.elements));
  tensor::ConvertToFloat(*dtype, bytes, absl::MakeSpan(floats));
  return floats;
}

}  // namespace attnd::files
