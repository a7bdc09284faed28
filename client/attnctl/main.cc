#include <iostream>

#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {
namespace {

int Run(int argc, char** argv) {
  const absl::StatusOr<Line> line = ParseLine(argc, argv);
  if (!line.ok()) return Report(line.status());
  if (line->help) {
    std::cout << (line->command == nullptr ? GeneralHelp() : HelpFor(*line->command));
    return kDone;
  }
  return Report(line->command->run(line->arguments));
}

}  // namespace
}  // namespace attnd::ctl

int main(int argc, char** argv) { return attnd::ctl::Run(argc, argv); }
