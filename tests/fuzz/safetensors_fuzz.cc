#include "files/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "check.h"
#include "tensor/dtype.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using attnd::fuzz::Check;
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = attnd::files::SafetensorsFile::Open(attnd::files::OpenMemory(bytes));
  if (!file.ok()) {
    Check(!file.status().message().empty(), "an error says what is wrong");
    return 0;
  }
  std::int64_t total = 0;
  for (const auto& [name, tensor] : file->tensors()) {
    Check(tensor.offset >= 8 && tensor.size >= 0, "ranges are positive");
    Check(tensor.offset + tensor.size <= static_cast<std::int64_t>(size), "ranges lie inside the file");
    total += tensor.size;
    std::vector<std::byte> content(static_cast<std::size_t>(tensor.size));
    Check(file->Read(tensor, 0, absl::MakeSpan(content)).ok(), "what is listed can be read");
    const bool converts = attnd::tensor::DTypeFromName(tensor.dtype).has_value();
    Check(file->ReadFloats(tensor).ok() == converts, "the three types convert, others do not");
  }
  Check(total < static_cast<std::int64_t>(size), "ranges do not overlap");
  return 0;
}
