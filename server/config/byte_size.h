// A flag type: a number of bytes, written as "268435456", "256MiB" or "1GiB".
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::server {

struct ByteSize {
  std::int64_t bytes;
};

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);

// The shortest exact form.
std::string AbslUnparseFlag(ByteSize size);

}  // namespace attnd::server
