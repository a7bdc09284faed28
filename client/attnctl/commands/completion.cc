#include "client/attnctl/commands/completion.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/completion.h"
#include "client/attnctl/output.h"
#include "client/attnctl/suggest.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  const std::vector<std::string>& shells = CompletedShells();
  if (std::count(shells.begin(), shells.end(), arguments[0]) > 0) {
    return WriteOutput("", CompletionScript(arguments[0], flags));
  }
  const std::string meant = Nearest(arguments[0], shells);
  return UsageError(absl::StrCat("SHELL: expected ", Or(shells), ", got ", Shown(arguments[0])),
                    meant.empty() ? "" : absl::StrCat("did you mean `attnctl completion ", meant, "`?"));
}

}  // namespace

Command CompletionCommand() {
  return {"completion",
          "SHELL",
          "print a script that completes this command line in bash, zsh or fish",
          "Installed packages have it where the shells look. By hand:\n\n"
          "  source <(attnctl completion bash)\n"
          "  attnctl completion zsh > \"${fpath[1]}/_attnctl\"\n"
          "  attnctl completion fish > ~/.config/fish/completions/attnctl.fish",
          {},
          Run};
}

}  // namespace attnd::ctl
