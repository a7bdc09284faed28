#include <algorithm>
#include <string>

#include "client/attnctl/flags.h"
#include "client/attnctl/help.h"
#include "client/attnctl/line.h"
#include "client/attnctl/output.h"
#include "client/attnctl/report.h"
#include "files/standard_streams.h"

namespace attnd::ctl {
namespace {

int Run(int argc, char** argv) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({argv + std::min(argc, 1), argv + argc}, flags);
  if (!line.ok()) return Report(line.status(), flags);
  if (line->version) return Report(WriteOutput("", VersionText()), flags);
  if (line->help) {
    return Report(WriteOutput("", line->command == nullptr ? GeneralHelp(flags) : HelpFor(*line->command, flags)),
                  flags);
  }
  return Report(line->command->run(flags, line->arguments), flags);
}

}  // namespace
}  // namespace attnd::ctl

int main(int argc, char** argv) {
  attnd::files::HoldStandardStreams();
  return attnd::ctl::Run(argc, argv);
}
