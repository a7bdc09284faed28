// attnctl's command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// A parsed command line.
struct Line {
  const Command* command = nullptr;  // null: none was named (help then lists what there is)
  std::string group;                 // for help: "models", if only the group was named
  bool help = false;     // help was requested: of arguments and known flags, only --json and --format are checked
  bool version = false;  // the line is `--version` alone
  std::vector<std::string> arguments;
};

// Parses the words after the program's name, and sets `flags`. Accepts only flags that the command takes; if a flag is
// repeated, the last value counts. `--flag value` and `--flag=value` may be before, between or after arguments; after
// `--` there are no flags and no words of the command's name. Errors: see UsageError; they suggest what a mistyped word
// may mean.
absl::StatusOr<Line> ParseLine(const std::vector<std::string>& words, Flags& flags);

}  // namespace attnd::ctl
