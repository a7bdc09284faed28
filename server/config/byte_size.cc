#include "server/config/byte_size.h"

#include <array>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace attnd::server {
namespace {

// Largest first, so that the first that divides a size is the one to write it with.
constexpr std::array<std::pair<absl::string_view, int>, 4> kUnits = {
    {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}};

}  // namespace

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  int shift = 0;
  for (const auto& [suffix, unit_shift] : kUnits) {
    if (absl::ConsumeSuffix(&text, suffix)) {
      shift = unit_shift;
      break;
    }
  }
  std::int64_t count;
  if (absl::SimpleAtoi(text, &count) && count >= 0 && count <= std::numeric_limits<std::int64_t>::max() >> shift) {
    size->bytes = count << shift;
    return true;
  }
  *error = "expected a number of bytes such as 1048576, 512KiB, 256MiB or 1GiB";
  return false;
}

std::string AbslUnparseFlag(ByteSize size) {
  for (const auto& [suffix, shift] : kUnits) {
    if (size.bytes > 0 && size.bytes % (std::int64_t{1} << shift) == 0) {
      return absl::StrCat(size.bytes >> shift, suffix);
    }
  }
  return absl::StrCat(size.bytes);
}

}  // namespace attnd::server
