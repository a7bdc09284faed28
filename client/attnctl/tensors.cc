#include "client/attnctl/tensors.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/usage.h"
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

// Adds advice for a file that cannot be read or has unexpected contents.
absl::Status Unread(absl::Status status, const std::string& path) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return WithAdvice(std::move(status), absl::StrCat("check the spelling of --input ", path));
    case absl::StatusCode::kPermissionDenied:
      return WithAdvice(std::move(status), "let yourself read it (chmod, chown), or name another file with --input");
    default:
      return WithAdvice(std::move(status),
                        "--input names a safetensors file: is it another kind of file, or incomplete?");
  }
}

// The error of a tensor with the wrong shape, type or values.
absl::Status Unfit(const std::string& path, const std::string& name, const std::string& expected,
                   const std::string& got, const std::string& advice) {
  return WithAdvice(absl::InvalidArgumentError(absl::StrCat(path, ": ", name, ": expected ", expected, ", got ", got)),
                    advice);
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
  if (stored != nullptr) return stored;
  return WithAdvice(absl::NotFoundError(absl::StrCat(path, " has no tensor ", Shown(name), "; ", Listed(file))),
                    "rename a tensor there, or name another file with --input; q, k and v are read, and what --compare "
                    "and --key_mask name");
}

absl::StatusOr<std::vector<std::byte>> ReadAll(const files::SafetensorsFile& file, const files::StoredTensor& stored,
                                               const std::string& path, const std::string& name) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(stored.size));
  if (absl::Status s = file.Read(stored, 0, absl::MakeSpan(bytes)); !s.ok()) {
    return Unread(absl::Status(s.code(), absl::StrCat(path, ": ", name, ": ", s.message())), path);
  }
  return bytes;
}

// Bytes of an element of a type of integers; 0 for other types.
std::size_t WholeNumberBytes(const std::string& dtype) {
  if (dtype != "BOOL" && dtype[0] != 'U' && dtype[0] != 'I') return 0;
  return static_cast<std::size_t>(files::SafetensorsBits(dtype).value_or(0)) / 8;
}

}  // namespace

absl::StatusOr<files::SafetensorsFile> OpenSafetensors(const std::string& path) {
  absl::StatusOr<std::unique_ptr<files::ByteSource>> source = files::OpenFile(path);
  if (!source.ok()) return Unread(source.status(), path);
  absl::StatusOr<files::SafetensorsFile> file = files::SafetensorsFile::Open(*std::move(source));
  if (!file.ok())
    return Unread(absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message())), path);
  return file;
}

absl::StatusOr<LoadedTensor> LoadTensor(const files::SafetensorsFile& file, const std::string& path,
                                        const std::string& name) {
  const absl::StatusOr<const files::StoredTensor*> found = Find(file, path, name);
  if (!found.ok()) return found.status();
  const files::StoredTensor* const stored = *found;
  const std::optional<tensor::DType> dtype = tensor::DTypeFromName(stored->dtype);
  if (!dtype.has_value()) {
    return Unfit(path, name, "F32, F16 or BF16", stored->dtype, "convert it to one of these and write the file anew");
  }
  if (stored->shape.size() != 4) {
    return Unfit(path, name, "four dimensions (batch, heads, sequence, dim)",
                 absl::StrCat("[", absl::StrJoin(stored->shape, ", "), "]"),
                 "give it all four, 1 for what there is one of, and write the file anew");
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
  const auto refused = [&](const std::string& expected, const std::string& got) {
    return Unfit(path, name, expected, got, "--key_mask names a mask of true keys; write the file anew");
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
    // Little-endian: the first byte of an element holds the 1.
    const auto byte = static_cast<unsigned char>((*bytes)[i]);
    if (byte > (i % width == 0 ? 1 : 0)) return refused("0 and 1", "another number");
    if (i % width == 0) mask[i / width] = byte;
  }
  return PackKeyBits(mask, keys);
}

absl::StatusOr<std::vector<float>> LoadKeyBias(const files::SafetensorsFile& file, const std::string& path,
                                               const std::string& name, std::int64_t heads, std::int64_t keys) {
  const absl::StatusOr<const files::StoredTensor*> stored = Find(file, path, name);
  if (!stored.ok()) return stored.status();
  if ((*stored)->shape != std::vector<std::int64_t>{heads, keys}) {
    return Unfit(path, name, absl::StrCat("[", heads, ", ", keys, "] (heads, keys)"),
                 absl::StrCat("[", absl::StrJoin((*stored)->shape, ", "), "]"),
                 "--key_bias names a bias of each key; write the file anew");
  }
  absl::StatusOr<std::vector<float>> bias = file.ReadFloats(**stored);
  if (!bias.ok()) return Unfit(path, name, "floats", (*stored)->dtype, "--key_bias names a bias of each key");
  return bias;
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
