// What a command is: how it is called, what its help says, and what it does.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

struct Command {
  std::string name;                // one or two words: "models load"
  std::string arguments;           // a word for each: "MODEL PATH"; "SOURCE...": one or more; empty if it takes none
  std::string summary;             // one line
  std::string details;             // paragraphs and examples for --help; may be empty
  std::vector<std::string> flags;  // those of Flags::own that it takes, in the order of its help
  // `arguments` has as many elements as the command's own has words. Errors become the exit code (report.h).
  absl::Status (*run)(const Flags& flags, const std::vector<std::string>& arguments);
};

}  // namespace attnd::ctl
