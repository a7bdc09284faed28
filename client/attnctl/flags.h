// attnctl's flags, and its command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/attnctl/command.h"

ABSL_DECLARE_FLAG(std::string, server);
ABSL_DECLARE_FLAG(absl::Duration, timeout);
ABSL_DECLARE_FLAG(std::string, model);
ABSL_DECLARE_FLAG(std::uint64_t, version);
ABSL_DECLARE_FLAG(std::string, table);
ABSL_DECLARE_FLAG(std::string, mask);
ABSL_DECLARE_FLAG(std::string, input);
ABSL_DECLARE_FLAG(std::string, output);
ABSL_DECLARE_FLAG(absl::optional<float>, scale);
ABSL_DECLARE_FLAG(absl::optional<std::int64_t>, query_offset);
ABSL_DECLARE_FLAG(std::vector<std::string>, query_lengths);
ABSL_DECLARE_FLAG(std::vector<std::string>, key_lengths);
ABSL_DECLARE_FLAG(std::string, layout);
ABSL_DECLARE_FLAG(std::string, output_dtype);
ABSL_DECLARE_FLAG(bool, lse);
ABSL_DECLARE_FLAG(std::string, compare);
ABSL_DECLARE_FLAG(absl::optional<double>, tolerance);
ABSL_DECLARE_FLAG(std::int64_t, queries);
ABSL_DECLARE_FLAG(std::int64_t, keys);
ABSL_DECLARE_FLAG(std::int64_t, query_start);
ABSL_DECLARE_FLAG(std::int64_t, key_start);
ABSL_DECLARE_FLAG(absl::optional<std::int64_t>, head);
ABSL_DECLARE_FLAG(std::string, format);
ABSL_DECLARE_FLAG(std::string, explain);
ABSL_DECLARE_FLAG(std::string, out);
ABSL_DECLARE_FLAG(std::string, name);
ABSL_DECLARE_FLAG(bool, replace);
ABSL_DECLARE_FLAG(bool, verbose);
ABSL_DECLARE_FLAG(bool, json);

namespace attnd::ctl {

// A command line, understood. Its flags are set in Abseil's registry, and only those of the command are accepted.
struct Line {
  const Command* command = nullptr;  // null: none was named (help then says what there is)
  bool help = false;
  std::vector<std::string> arguments;
};

// `--flag value` and `--flag=value`, before, between or after arguments; `--` ends flags. Errors: see UsageError.
absl::StatusOr<Line> ParseLine(int argc, char** argv);

std::string GeneralHelp();
std::string HelpFor(const Command& command);

}  // namespace attnd::ctl
