#include <algorithm>
#include <iostream>

#include "client/attnctl/flags.h"
#include "client/attnctl/help.h"
#include "client/attnctl/line.h"
#include "client/attnctl/report.h"

namespace attnd::ctl {
namespace {

int Run(int argc, char** argv) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({argv + std::min(argc, 1), argv + argc}, flags);
  if (!line.ok()) return Report(line.status(), flags);
  if (line->help) {
    std::cout << (line->command == nullptr ? GeneralHelp(flags) : HelpFor(*line->command, flags));
    return kDone;
  }
  return Report(line->command->run(flags, line->arguments), flags);
}

}  // namespace
}  // namespace attnd::ctl

int main(int argc, char** argv) { return attnd::ctl::Run(argc, argv); }
