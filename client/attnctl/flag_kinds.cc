#include "client/attnctl/flag_kinds.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {

absl::Status NumbersFlag::Set(const std::string& text) {
  std::vector<std::int64_t> numbers;
  if (!text.empty()) {
    for (const absl::string_view word : absl::StrSplit(text, ',')) {
      if (absl::SimpleAtoi(word, &numbers.emplace_back())) continue;
      return UsageError(absl::StrCat("--", name(), ": expected whole numbers separated by commas, got \"", word, "\""));
    }
  }
  value_ = std::move(numbers);
  return absl::OkStatus();
}

}  // namespace attnd::ctl
