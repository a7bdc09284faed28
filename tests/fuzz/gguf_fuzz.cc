#include "model/gguf.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "model/gguf_tables.h"
#include "tables_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using attnd::fuzz::Check;
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = attnd::model::GgufFile::Open(attnd::files::OpenMemory(bytes));
  if (file.ok()) {
    for (const auto& [name, tensor] : file->tensors()) {
      Check(tensor.offset >= 0 && tensor.size.value_or(0) >= 0, "ranges are positive");
      Check(tensor.offset + tensor.size.value_or(0) <= static_cast<std::int64_t>(size), "ranges lie inside the file");
      if (tensor.elements <= attnd::fuzz::kLimits.max_table_values) {
        Check(file->ReadFloats(tensor).ok() == tensor.dtype.has_value(), "the three types convert, others do not");
      }
    }
  }
  // A shard's siblings are the same bytes.
  const auto open = [&](const std::string&) -> absl::StatusOr<std::unique_ptr<attnd::files::ByteSource>> {
    return attnd::files::OpenMemory(bytes);
  };
  const auto contents = attnd::model::ReadGguf(open, "model-00001-of-00002.gguf", attnd::fuzz::kLimits);
  if (contents.ok()) attnd::fuzz::CheckTables(*contents);
  return 0;
}
