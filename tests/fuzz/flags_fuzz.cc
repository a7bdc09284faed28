// attnd's flags: the input is lines NAME=VALUE. Each is set as the command line sets it, then all are read and checked.
#include "server/config/flags.h"

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/string_view.h"
#include "check.h"
#include "server/config/byte_size.h"
#include "server/config/limits.h"

namespace attnd::server {
namespace {

using fuzz::Check;

// Not Abseil's own, some of which read files and end the process.
bool IsOurs(absl::string_view name) {
  static const std::set<std::string>& names = *[] {
    auto* const ours = new std::set<std::string>(
        {"listen", "model_root", "strict_models", "threads", "kernel", "drain_seconds", "keepalive_time",
         "keepalive_timeout", "min_ping_interval", "max_connection_age", "max_connection_age_grace", "unix_socket_mode",
         "handshake_time", "max_connection_idle", "receive_ahead", "shared_memory", "local_calls", "log_level"});
    for (const LimitRow& row : LimitRows()) {
      if (row.has_flag) ours->insert(row.name);
    }
    return ours;
  }();
  return names.count(std::string(name)) != 0;
}

void CheckByteSize(absl::string_view text) {
  ByteSize size{-1};
  std::string error;
  if (!AbslParseFlag(text, &size, &error)) return;
  ByteSize again{-1};
  Check(AbslParseFlag(AbslUnparseFlag(size), &again, &error) && again.bytes == size.bytes,
        "a size's shortest form is exact");
}

void CheckTaken(const Options& options) {
  Check(CheckOptions(options).ok(), "what was read is valid");
  for (const LimitRow& row : LimitRows()) {
    const std::int64_t value = options.limits.*row.value;
    if (row.has_flag) Check(value >= row.lowest && value <= row.highest, "a limit is in its range");
  }
  Check(options.threads >= 0 && options.threads <= 4096, "threads are in their range");
  Check((options.unix_socket_mode & ~mode_t{0777}) == 0, "a mode is permissions");
  Check(options.drain >= absl::ZeroDuration() && options.drain < absl::InfiniteDuration(), "a stop ends");
  for (const absl::Duration time :
       {options.keepalive_time, options.keepalive_timeout, options.min_ping_interval, options.handshake_time,
        options.max_connection_idle, options.max_connection_age, options.max_connection_age_grace}) {
    Check(time >= absl::Milliseconds(1), "times are of a millisecond at least");
  }
  Check(!options.listen.empty(), "there is an address");
}

void Run(absl::string_view text) {
  const absl::FlagSaver saved;
  while (!text.empty()) {
    const absl::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    const std::size_t equals = line.find('=');
    if (equals == absl::string_view::npos || !IsOurs(line.substr(0, equals))) continue;
    absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(line.substr(0, equals));
    Check(flag != nullptr, "the flag exists");
    const absl::string_view value = line.substr(equals + 1);
    std::string error;
    if (!flag->ParseFrom(value, &error)) {
      Check(!error.empty(), "a refusal has words");
      continue;
    }
    CheckByteSize(value);
    const std::string current = flag->CurrentValue();
    Check(flag->ParseFrom(current, &error) && flag->CurrentValue() == current, "a value is read as it is written");
  }
  char name[] = "attnd";
  char* argv[] = {name, nullptr};
  const absl::StatusOr<Options> options = OptionsFromCommandLine(1, argv);
  if (options.ok()) {
    CheckTaken(*options);
  } else {
    Check(absl::IsInvalidArgument(options.status()), "a bad value is INVALID_ARGUMENT");
    Check(options.status().message().find("--") == 0, "a refusal names the flag");
  }
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attnd::server::Run(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
