// attnctl's command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// A command line, understood.
struct Line {
  const Command* command = nullptr;  // null: none was named (help then says what there is)
  std::string group;                 // with help: "models", if that alone was named
  bool help = false;                 // with it neither arguments nor flags are judged, but for --json and --format
  bool version = false;              // `--version` alone
  std::vector<std::string> arguments;
};

// Understands the words after the program's name, and sets `flags`: only those that the command takes are accepted, and
// of a flag that is given twice the last value. `--flag value` and `--flag=value` may stand before, between or after
// arguments; `--` ends flags and the command's
// name. Errors: see UsageError. They say what a mistyped word was perhaps meant to be.
absl::StatusOr<Line> ParseLine(const std::vector<std::string>& words, Flags& flags);

}  // namespace attnd::ctl
