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
  const files::StoredTensor* stored = file.Find(name);
  if (stored == nullptr) return absl::NotFoundError(absl::StrCat(path, " has no tensor ", name, "; ", Listed(file)));
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
  LoadedTensor loaded{FromEngine(*dtype), {}, std::vector<std::byte>(static_cast<std::size_t>(stored->size))};
  std::copy(stored->shape.begin(), stored->shape.end(), loaded.sizes.begin());
  if (absl::Status s = file.Read(*stored, 0, absl::MakeSpan(loaded.bytes)); !s.ok()) {
    return absl::Status(s.code(), absl::StrCat(path, ": ", name, ": ", s.message()));
  }
  return loaded;
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
