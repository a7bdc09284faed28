#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {
namespace {

// Marks a status as a usage error.
constexpr char kUsageUrl[] = "attnctl/usage";

std::string StartCommand(const std::string& address) {
  return absl::StrCat("start it with `attnd --listen ", address, "`");
}

// What to do about a failed call; empty if its message says enough.
std::string Advice(const absl::Status& status) {
  const std::string address = ServerAddress();
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return absl::StrCat("is attnd running there? ", StartCommand(address),
                          ", or name another address with --server or ATTND_SERVER");
    case absl::StatusCode::kDeadlineExceeded:
      return absl::StrCat("allow it more time with --timeout (now ", absl::FormatDuration(absl::GetFlag(FLAGS_timeout)),
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
  if (status.GetPayload(kUsageUrl).has_value()) return kUsage;
  if (status.code() == absl::StatusCode::kUnavailable) return kUnreachable;
  return status.code() == absl::StatusCode::kNotFound ? kNotFound : kFailed;
}

}  // namespace

absl::Status UsageError(const std::string& message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsageUrl, absl::Cord());
  return status;
}

ExitCode Report(const absl::Status& status) {
  const ExitCode code = CodeOf(status);
  if (code == kDone) return code;
  if (code == kUsage) {
    std::cerr << "attnctl: " << status.message() << "\n`attnctl --help` lists the commands.\n";
    return code;
  }
  if (code == kUnreachable) {
    std::cerr << "attnctl: cannot reach " << ServerAddress() << ": " << status.message() << "\n";
  } else {
    std::cerr << "attnctl: " << status.message() << "\n";
  }
  if (const std::string advice = Advice(status); !advice.empty()) std::cerr << advice << "\n";
  return code;
}

absl::Status WriteOutput(const std::string& path, const std::string& contents) {
  const bool to_stdout = path.empty() || path == "-";
  std::ofstream file;
  if (!to_stdout) file.open(path, std::ios::binary | std::ios::trunc);
  std::ostream& out = to_stdout ? std::cout : file;
  out << contents << std::flush;
  if (out.good()) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", to_stdout ? "standard output" : path));
}

}  // namespace attnd::ctl
