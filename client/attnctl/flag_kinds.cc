#include "client/attnctl/flag_kinds.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

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

absl::Status HeadsFlag::Set(const std::string& text) {
  const Range<std::int64_t> range;  // unlimited: only the table knows its heads
  std::vector<std::int64_t> heads;
  const std::vector<std::string> words = absl::StrSplit(text, ',');
  for (const std::string& word : text == "all" ? std::vector<std::string>() : words) {
    const std::optional<std::int64_t> head = Parsed(word, range);
    if (!head.has_value()) return WrongValue(*this, "all, or numbers of heads, as 0,3,5", text);
    heads.push_back(*head);
  }
  given_ = true;
  value_ = std::move(heads);
  return absl::OkStatus();
}

}  // namespace attnd::ctl
