#include "model/json_model.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tables_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto contents = attnd::model::ParseJsonModel(text, attnd::fuzz::kLimits);
  if (contents.ok()) attnd::fuzz::CheckTables(*contents);
  return 0;
}
