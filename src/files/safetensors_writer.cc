#include "files/safetensors_writer.h"

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "files/output_file.h"
#include "files/safetensors.h"
#include "nlohmann/json.hpp"
#include "tensor/checked_size.h"

namespace attnd::files {
namespace {

absl::Status CheckTensor(const TensorToWrite& tensor) {
  const auto invalid = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\": ", problem));
  };
  if (tensor.name.empty() || tensor.name == "__metadata__") return invalid("the name is empty or reserved");
  const std::optional<int> bits = SafetensorsBits(tensor.dtype);
  if (!bits) return invalid(absl::StrCat("dtype: \"", tensor.dtype, "\" is not one of the format"));
  const std::optional<std::int64_t> elements = tensor::CheckedProduct(tensor.shape);
  const std::optional<std::int64_t> all_bits = elements ? tensor::CheckedProduct({*elements, *bits}) : std::nullopt;
  if (!all_bits || *all_bits % 8 != 0) return invalid("shape: too large, negative, or no whole number of bytes");
  if (static_cast<std::uint64_t>(*all_bits / 8) != tensor.bytes.size()) {
    return invalid(absl::StrCat("bytes: expected ", *all_bits / 8, " for its shape, got ", tensor.bytes.size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> SafetensorsHeader(absl::Span<const TensorToWrite> tensors,
                                              const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (absl::Status check = CheckTensor(tensor); !check.ok()) return check;
    if (header.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" is given twice"));
    }
    const std::size_t end = offset + tensor.bytes.size();
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::type_error&) {
    return absl::InvalidArgumentError("a tensor's name or a metadata string is not UTF-8");
  }
  while (text.size() % 8 != 0) text.push_back(' ');
  const std::uint64_t length = text.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<std::string> header = SafetensorsHeader(tensors, metadata);
  if (!header.ok()) return header.status();
  std::vector<Bytes> pieces = {{reinterpret_cast<const std::byte*>(header->data()), header->size()}};
  for (const TensorToWrite& tensor : tensors) pieces.push_back(tensor.bytes);
  return WriteFile(path, pieces);
}

}  // namespace attnd::files
