#include "client/attnctl/flag.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {

Flag::Flag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words)
    : name_(std::move(name)),
      placeholder_(std::move(placeholder)),
      help_(std::move(help)),
      default_words_(std::move(default_words)) {
  list.push_back(this);
}

absl::Status CannotUnderstand(const Flag& flag, const std::string& text, const std::string& why) {
  return UsageError(
      absl::StrCat("--", flag.name(), ": cannot understand \"", text, "\"", why.empty() ? "" : ": ", why));
}

absl::Status NotAChoice(const Flag& flag, const std::string& text) {
  std::vector<std::string> others = flag.choices();
  const std::string last = others.back();
  others.pop_back();
  return UsageError(absl::StrCat("--", flag.name(), ": expected ", absl::StrJoin(others, ", "),
                                 others.empty() ? "" : " or ", last, ", got ", text));
}

}  // namespace attnd::ctl
