#include <algorithm>
#include <string>

#include "client/attnctl/flags.h"
#include "client/attnctl/help.h"
#include "client/attnctl/line.h"
#include "client/attnctl/mistakes.h"
#include "client/attnctl/output.h"
#include "client/attnctl/report.h"
#include "files/standard_streams.h"

namespace attnd::ctl {
namespace {

absl::Status Do(const Line& line, const Flags& flags) {
  if (line.version) return WriteOutput("", VersionText());
  if (line.help) return WriteOutput("", Help(line, flags));
  return OrSubcommand(line.command->run(flags, line.arguments), *line.command, line.arguments);
}

int Run(int argc, char** argv) {
  Flags flags;
  const absl::StatusOr<Line> line = ParseLine({argv + std::min(argc, 1), argv + argc}, flags);
  if (!line.ok()) return Report(line.status(), nullptr, flags);
  return Report(Do(*line, flags), line->command, flags);
}

}  // namespace
}  // namespace attnd::ctl

int main(int argc, char** argv) {
  attnd::files::HoldStandardStreams();
  return attnd::ctl::Run(argc, argv);
}
