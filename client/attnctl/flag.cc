#include "client/attnctl/flag.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/suggest.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {

Flag::Flag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words)
    : name_(std::move(name)),
      placeholder_(std::move(placeholder)),
      help_(std::move(help)),
      default_words_(std::move(default_words)) {
  list.push_back(this);
}

absl::Status WrongValue(const Flag& flag, const std::string& expected, const std::string& text,
                        const std::string& advice) {
  std::string what = advice;
  if (what.empty() && !flag.default_words().empty()) {
    what = absl::StrCat("without --", flag.name(), " it is: ", flag.default_words());
  } else if (what.empty()) {
    what = absl::StrCat("write `--", flag.name(), " ", flag.placeholder(), "`: ", flag.help());
  }
  return UsageError(absl::StrCat("--", flag.name(), ": expected ", expected, ", got ", Shown(text)), what);
}

std::string Or(const std::vector<std::string>& words) {
  if (words.size() < 2) return absl::StrJoin(words, "");
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "), " or ", words.back());
}

absl::Status NotAChoice(const Flag& flag, const std::vector<std::string>& choices, const std::string& text) {
  const std::string meant = Nearest(text, choices);
  return WrongValue(flag, Or(choices), text,
                    meant.empty() ? "" : absl::StrCat("did you mean `--", flag.name(), " ", meant, "`?"));
}

}  // namespace attnd::ctl
