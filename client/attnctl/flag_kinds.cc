#include "client/attnctl/flag_kinds.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attnd::ctl {

absl::Status NumbersFlag::Set(const std::string& text) {
  std::vector<std::int64_t> numbers;
  for (const absl::string_view word : absl::StrSplit(text, ',')) {
    const std::optional<std::int64_t> number = Parsed(std::string(word), range_);
    if (!number.has_value()) {
      return WrongValue(*this, absl::StrCat(Expected(range_), " for each sequence, as 5,3,8"), text);
    }
    numbers.push_back(*number);
  }
  value_ = std::move(numbers);
  return absl::OkStatus();
}

}  // namespace attnd::ctl
