#include "client/attnctl/commands/manual.h"

#include <string>
#include <vector>

#include "client/attnctl/manual.h"
#include "client/attnctl/output.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  return WriteOutput("", ManualPage(flags));
}

}  // namespace

Command ManualCommand() {
  return {"manual",
          "",
          "print the manual page, attnctl(1)",
          "Installed packages have it where man looks. By hand:\n\n"
          "  attnctl manual | man -l -",
          {},
          Run};
}

}  // namespace attnd::ctl
