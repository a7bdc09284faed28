#include "model/gguf.h"

#include <cstddef>
#include <cstdint>

#include "model/gguf_tables.h"
#include "tables_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using attnd::fuzz::Check;
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = attnd::model::GgufFile::Open(attnd::files::OpenMemory(bytes));
  if (file.ok()) {
    for (const auto& [name, tensor] : file->tensors()) {
      Check(tensor.offset >= 0 && tensor.size >= 0, "ranges are positive");
      Check(tensor.offset + tensor.size <= static_cast<std::int64_t>(size), "ranges lie inside the file");
      if (tensor.elements <= attnd::fuzz::kLimits.max_table_values) {
        Check(file->ReadFloats(tensor).ok() == tensor.dtype.has_value(), "the three types convert, others do not");
      }
    }
  }
  const auto contents = attnd::model::ReadGguf(attnd::files::OpenMemory(bytes), attnd::fuzz::kLimits);
  if (contents.ok()) attnd::fuzz::CheckTables(*contents);
  return 0;
}
