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
  bool help = false;                 // with it neither flags nor arguments are judged
  bool version = false;              // `--version` alone
  std::vector<std::string> arguments;
};

// Understands the words after the program's name, and sets `flags`: only those that the command takes are accepted.
// `--flag value` and `--flag=value` may stand before, between or after arguments; `--` ends flags and the command's
// name. Errors: see UsageError.
absl::StatusOr<Line> ParseLine(const std::vector<std::string>& words, Flags& flags);

}  // namespace attnd::ctl
