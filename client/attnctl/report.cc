#include "client/attnctl/report.h"

#include <iostream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

std::string StartCommand(const std::string& address) {
  return absl::StrCat("start it with `attnd --listen ", address, "`");
}

// What to do about a failed call; empty if its message says enough.
std::string Advice(const absl::Status& status, const Flags& flags) {
  if (IsOutputError(status)) {
    return absl::IsResourceExhausted(status) ? "is the disk full? make room there, or write elsewhere" : "";
  }
  const std::string address = ServerAddress(flags);
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return absl::StrCat("is attnd running there? ", StartCommand(address),
                          ", or name another address with --server or ATTND_SERVER");
    case absl::StatusCode::kDeadlineExceeded:
      return absl::StrCat("allow it more time with --timeout (now ", absl::FormatDuration(flags.timeout.value()),
                          "), or ask less of it");
    case absl::StatusCode::kNotFound:
      return absl::StrContains(status.message(), "model") || absl::StrContains(status.message(), "table")
                 ? "`attnctl models list` shows what is loaded, `attnctl models show MODEL` its tables"
                 : "";
    case absl::StatusCode::kResourceExhausted:
      return "`attnctl info` shows the server's limits";
    case absl::StatusCode::kAlreadyExists:
      return "`attnctl models reload` reads it again, `attnctl models unload` removes it";
    case absl::StatusCode::kUnimplemented:
      return absl::StrCat("is ", address, " an attnd server of this version?");
    default:
      return "";
  }
}

ExitCode CodeOf(const absl::Status& status) {
  if (status.ok()) return kDone;
  if (IsUsageError(status)) return kUsage;
  if (IsOutputError(status)) return kFailed;
  if (status.code() == absl::StatusCode::kUnavailable) return kUnreachable;
  return status.code() == absl::StatusCode::kNotFound ? kNotFound : kFailed;
}

}  // namespace

ExitCode Report(const absl::Status& status, const Flags& flags) {
  const ExitCode code = CodeOf(status);
  if (code == kDone) return code;
  if (code == kUsage) {
    std::cerr << "attnctl: " << status.message() << "\n`attnctl --help` lists the commands.\n";
    return code;
  }
  if (code == kUnreachable) {
    std::cerr << "attnctl: cannot reach " << ServerAddress(flags) << ": " << status.message() << "\n";
  } else {
    std::cerr << "attnctl: " << status.message() << "\n";
  }
  if (const std::string advice = Advice(status, flags); !advice.empty()) std::cerr << advice << "\n";
  return code;
}

}  // namespace attnd::ctl
