#include "client/attnctl/report.h"

#include <iostream>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"
#include "client/attnctl/field_words.h"
#include "client/attnctl/mistakes.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/unreachable.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using absl::StatusCode;

std::string OutputAdvice(StatusCode code) {
  switch (code) {
    case StatusCode::kResourceExhausted:
      return "is the disk full? make room there, or write elsewhere";
    case StatusCode::kNotFound:
      return "make that folder first, or write elsewhere";
    case StatusCode::kPermissionDenied:
      return "write elsewhere, or let yourself write there (chmod, chown)";
    default:
      return "write elsewhere: to another file, or to standard output";
  }
}

// Suggests the layout that the flags did not select.
std::string OtherLayout(const Flags& flags) {
  return flags.layout.value() == Layout::kBatchHeadSequenceDim
             ? "is it [batch, sequence, heads, dim]? then say `--layout bshd`; else it must be [batch, heads, "
               "sequence, dim]"
             : "is it [batch, heads, sequence, dim]? then leave `--layout bshd` out";
}

std::string UnreachableAdvice(const absl::Status& status, const std::string& address) {
  if (AnsweredByServer(status)) {
    return "call another server with --server, or this one once it runs again: `--retry_for 1m` keeps trying";
  }
  return absl::StrCat("is attnd running there? start it with `attnd --listen ", address,
                      "`, or name another address with --server or ATTND_SERVER");
}

// The server sets a retry delay if it lacked memory that other calls hold.
std::string ExhaustedAdvice(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (detail.has_value() && detail->retry_delay.has_value()) {
    return absl::StrCat("other calls hold the memory: try again in ", absl::FormatDuration(*detail->retry_delay),
                        "; `attnctl info` shows what is in use");
  }
  return "ask less of it; `attnctl info` shows the server's limits";
}

// Advice for the code of a failed call.
std::string CallAdvice(const absl::Status& status, const Flags& flags) {
  switch (status.code()) {
    case StatusCode::kUnavailable:
      return UnreachableAdvice(status, ServerAddress(flags));
    case StatusCode::kDeadlineExceeded:
      return absl::StrCat("allow it more time with --timeout (now ", absl::FormatDuration(flags.timeout.value()),
                          "), or ask less of it");
    case StatusCode::kNotFound:
      return absl::StrContains(status.message(), "odel") || absl::StrContains(status.message(), "able")
                 ? "`attnctl models list` shows what is loaded, `attnctl models show MODEL` its tables"
                 : "check the spelling and the folder it is in";
    case StatusCode::kResourceExhausted:
      return ExhaustedAdvice(status);
    case StatusCode::kAlreadyExists:
      return "`attnctl models reload` reads it again, `attnctl models unload` removes it";
    case StatusCode::kUnimplemented:
      return absl::StrCat("is ", ServerAddress(flags), " an attnd server of this version? `attnctl info` asks it");
    case StatusCode::kAborted:
      return "do the same again";
    default:
      return "";
  }
}

std::string Advice(const absl::Status& status, const Command* command, const Flags& flags) {
  if (std::string given = AdviceOf(status); !given.empty()) return given;
  if (IsUsageError(status)) return SeeHelp(command);
  if (IsOutputError(status)) return OutputAdvice(status.code());
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (detail.has_value() && command != nullptr && IsAboutAxes(command->request, *detail)) return OtherLayout(flags);
  if (std::string by_code = CallAdvice(status, flags); !by_code.empty()) {
    if (status.code() == StatusCode::kUnavailable && command != nullptr && !command->offline.empty()) {
      absl::StrAppend(&by_code, "; ", command->offline);
    }
    return by_code;
  }
  if (detail.has_value()) return absl::StrCat("change that and try again; ", SeeHelp(command));
  return "the server's log may say more; `attnctl health` shows whether it serves";
}

// The message of a failed call without an ErrorDetail.
std::string CallMessage(const absl::Status& status, const Flags& flags) {
  const std::string address = ServerAddress(flags);
  if (AnsweredByServer(status)) {
    return status.code() == StatusCode::kUnavailable ? absl::StrCat(address, ": ", status.message())
                                                     : std::string(status.message());
  }
  switch (status.code()) {
    case StatusCode::kUnavailable:
      return absl::StrCat("cannot reach ", address, ": ", PlainReason(status.message()));
    case StatusCode::kDeadlineExceeded:
      return absl::StrCat("no answer from ", address, " within ", absl::FormatDuration(flags.timeout.value()));
    case StatusCode::kUnimplemented:
      return absl::StrCat(address, " does not know this call");
    case StatusCode::kCancelled:
      return absl::StrCat(address, " gave the call up");
    default:
      break;
  }
  return status.message().empty() ? absl::StrCat("the call to ", address, " failed") : std::string(status.message());
}

// File names may contain line feeds and terminal control sequences.
std::string OneLine(absl::string_view text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppend(&line, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      line += c;
    }
  }
  return line;
}

ExitCode CodeOf(const absl::Status& status) {
  if (status.ok()) return kDone;
  if (IsUsageError(status)) return kUsage;
  if (IsOutputError(status)) return kFailed;
  if (status.code() == StatusCode::kUnavailable) return kUnreachable;
  return status.code() == StatusCode::kNotFound ? kNotFound : kFailed;
}

}  // namespace

std::string Message(const absl::Status& status, const Command* command, const Flags& flags) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  const bool own = IsUsageError(status) || IsOutputError(status) || (!AdviceOf(status).empty() && !detail.has_value());
  const std::string what = own                  ? std::string(status.message())
                           : detail.has_value() ? InWords(command == nullptr ? "" : command->request, *detail)
                                                : CallMessage(status, flags);
  return absl::StrCat("attnctl: ", OneLine(what), "\n", OneLine(Advice(status, command, flags)), "\n");
}

ExitCode Report(const absl::Status& status, const Command* command, const Flags& flags) {
  const ExitCode code = CodeOf(status);
  if (code != kDone) std::cerr << Message(status, command, flags);
  return code;
}

}  // namespace attnd::ctl
