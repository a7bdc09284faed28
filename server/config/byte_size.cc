#include "server/config/byte_size.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "contract/byte_size.h"

namespace attnd::server {

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  const std::optional<std::int64_t> bytes = contract::ParseByteSize(text);
  if (bytes.has_value()) {
    size->bytes = *bytes;
    return true;
  }
  *error = absl::StrCat("expected ", contract::kByteSizes);
  return false;
}

std::string AbslUnparseFlag(ByteSize size) { return contract::ByteSizeText(size.bytes); }

}  // namespace attnd::server
