#include "client/attnctl/command.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace attnd::ctl {

std::vector<std::string> ArgumentsOf(const Command& command) {
  return absl::StrSplit(command.arguments, ' ', absl::SkipEmpty());
}

bool TakesArguments(const Command& command, std::size_t count) {
  const std::size_t words = ArgumentsOf(command).size();
  return absl::EndsWith(command.arguments, "...") ? count >= words : count == words;
}

Flag* FlagOf(const Command& command, const Flags& flags, absl::string_view name) {
  if (command.instead != nullptr) {
    for (Flag* flag : flags.*command.instead) {
      if (flag->name() == name) return flag;
    }
  }
  return flags.Find(name);
}

bool Takes(const Command& command, const Flags& flags, const Flag& flag) {
  return std::count(flags.common.begin(), flags.common.end(), &flag) > 0 ||
         std::count(command.flags.begin(), command.flags.end(), flag.name()) > 0;
}

std::vector<std::string> ChoicesOf(const Command& command, const Flag& flag) {
  const auto narrowed = command.narrowed.find(flag.name());
  return narrowed == command.narrowed.end() ? flag.choices() : narrowed->second;
}

std::string PlaceholderOf(const Command& command, const Flag& flag) {
  const std::vector<std::string> choices = ChoicesOf(command, flag);
  return choices.empty() ? flag.placeholder() : absl::StrJoin(choices, "|");
}

}  // namespace attnd::ctl
