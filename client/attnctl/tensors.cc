#include "client/attnctl/tensors.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "files/byte_source.h"
#include "tensor/convert.h"

namespace attnd::ctl {
namespace {

DType FromEngine(tensor::DType dtype) {
  switch (dtype) {
    case tensor::DType::kF32:
      return DType::kFp32;
    case tensor::DType::kF16:
      return DType::kFp16;
    case tensor::DType::kBF16:
      break;
  }
  return DType::kBf16;
}

std::string Listed(const files::SafetensorsFile& file) {
  if (file.tensors().empty()) return "it has none";
  return absl::StrCat("it has ", absl::StrJoin(file.tensors(), ", ", [](std::string* out, const auto& entry) {
                        absl::StrAppend(out, entry.first, " ", entry.second.dtype, " [",
                                        absl::StrJoin(entry.second.shape, ", "), "]");
                      }));
}

absl::StatusOr<const files::StoredTensor*> Find(const files::SafetensorsFile& file, const std::string& path,
                                                const std::string& name) {
  const files::StoredTensor* stored = file.Find(name);
  if (stored == nullptr) return absl::NotFoundError(absl::StrCat(path, " has no tensor ", name, "; ", Listed(file)));
  return stored;
}

absl::StatusOr<std::vector<std::byte>> ReadAll(const files::SafetensorsFile& file, const files::StoredTensor& stored,
                                               const std::string& path, const std::string& name) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(stored.size));
  if (absl::Status s = file.Read(stored, 0, absl::MakeSpan(bytes)); !s.ok()) {
    return absl::Status(s.code(), absl::StrCat(path, ": ", name, ": ", s.message()));
  }
  return bytes;
}

// Bytes of an element of a type that holds 0 and 1; 0 for others.
std::size_t WholeNumberBytes(const std::string& dtype) {
  if (dtype != "BOOL" && dtype[0] != 'U' && dtype[0] != 'I') return 0;
  return static_cast<std::size_t>(files::SafetensorsBits(dtype).value_or(0)) / 8;
}

}  // namespace

absl::StatusOr<files::SafetensorsFile> OpenSafetensors(const std::string& path) {
  absl::StatusOr<std::unique_ptr<files::ByteSource>> source = files::OpenFile(path);
  if (!source.ok()) return source.status();
  absl::StatusOr<files::SafetensorsFile> file = files::SafetensorsFile::Open(*std::move(source));
  if (!file.ok()) return absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message()));
  return file;
}

absl::StatusOr<LoadedTensor> LoadTensor(const files::SafetensorsFile& file, const std::string& path,
                                        const std::string& name) {
  const absl::StatusOr<const files::StoredTensor*> found = Find(file, path, name);
  if (!found.ok()) return found.status();
  const files::StoredTensor* const stored = *found;
  const std::optional<tensor::DType> dtype = tensor::DTypeFromName(stored->dtype);
  if (!dtype.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", name, ": expected F32, F16 or BF16, got ", stored->dtype));
  }
  if (stored->shape.size() != 4) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", name,
                                                   ": expected four dimensions (batch, heads, sequence, dim), got [",
                                                   absl::StrJoin(stored->shape, ", "), "]"));
  }
  absl::StatusOr<std::vector<std::byte>> bytes = ReadAll(file, *stored, path, name);
  if (!bytes.ok()) return bytes.status();
  LoadedTensor loaded{FromEngine(*dtype), {}, *std::move(bytes)};
  std::copy(stored->shape.begin(), stored->shape.end(), loaded.sizes.begin());
  return loaded;
}

absl::StatusOr<std::vector<unsigned char>> LoadKeyBits(const files::SafetensorsFile& file, const std::string& path,
                                                       const std::string& name, std::int64_t batch, std::int64_t keys) {
  const absl::StatusOr<const files::StoredTensor*> stored = Find(file, path, name);
  if (!stored.ok()) return stored.status();
  const auto refused = [&](const auto& expected, const auto& got) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", name, ": expected ", expected, ", got ", got));
  };
  const std::size_t width = WholeNumberBytes((*stored)->dtype);
  if (width == 0) return refused("BOOL or integers", (*stored)->dtype);
  if ((*stored)->shape != std::vector<std::int64_t>{batch, keys}) {
    return refused(absl::StrCat("[", batch, ", ", keys, "] (batch, keys)"),
                   absl::StrCat("[", absl::StrJoin((*stored)->shape, ", "), "]"));
  }
  const absl::StatusOr<std::vector<std::byte>> bytes = ReadAll(file, **stored, path, name);
  if (!bytes.ok()) return bytes.status();
  std::vector<unsigned char> mask(bytes->size() / width);
  for (std::size_t i = 0; i < bytes->size(); ++i) {
    // Little-endian: 1 is in an element's first byte.
    const auto byte = static_cast<unsigned char>((*bytes)[i]);
    if (byte > (i % width == 0 ? 1 : 0)) return refused("0 and 1", "another number");
    if (i % width == 0) mask[i / width] = byte;
  }
  return PackKeyBits(mask, keys);
}

tensor::DType ToEngine(DType dtype) {
  return dtype == DType::kFp32   ? tensor::DType::kF32
         : dtype == DType::kFp16 ? tensor::DType::kF16
                                 : tensor::DType::kBF16;
}

std::vector<float> Widened(DType dtype, absl::Span<const std::byte> bytes) {
  std::vector<float> floats(bytes.size() / SizeOf(dtype));
  tensor::ConvertToFloat(ToEngine(dtype), bytes, absl::MakeSpan(floats));
  return floats;
}

}  // namespace attnd::ctl
