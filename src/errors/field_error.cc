#include "errors/field_error.h"

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "errors/shown.h"

namespace attnd::errors {
namespace {

// The payload: field, expected and got, separated by NULs. Shown leaves no NUL in them.
constexpr char kPayloadUrl[] = "attnd/field";
constexpr char kSeparator = '\0';

// HTTP/2 headers carry the message once and its contents twice more in the details; all three must fit into the usual
// limit of 8 KiB.
constexpr std::size_t kMaxFieldBytes = 200;
constexpr std::size_t kMaxExpectedBytes = 400;
constexpr std::size_t kMaxGotBytes = 200;
// Messages of the file readers name a file, a tensor and the problem.
constexpr std::size_t kMaxBlamedBytes = 600;

absl::Status Make(absl::StatusCode code, const contract::Fault& fault) {
  absl::Status status(code, absl::StrCat(fault.field, ": expected ", fault.expected, ", got ", fault.got));
  const absl::string_view separator(&kSeparator, 1);
  status.SetPayload(kPayloadUrl,
                    absl::Cord(absl::StrCat(fault.field, separator, fault.expected, separator, fault.got)));
  return status;
}

}  // namespace

absl::Status FieldError(absl::StatusCode code, absl::string_view field, absl::string_view expected,
                        absl::string_view got) {
  return Make(code, {Shown(field, kMaxFieldBytes), Shown(expected, kMaxExpectedBytes), Shown(got, kMaxGotBytes)});
}

std::optional<contract::Fault> FaultOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  std::vector<std::string> parts = absl::StrSplit(std::string(*payload), kSeparator);
  return contract::Fault{std::move(parts.at(0)), std::move(parts.at(1)), std::move(parts.at(2))};
}

absl::Status Under(absl::string_view prefix, const absl::Status& status) {
  std::optional<contract::Fault> fault = FaultOf(status);
  if (!fault.has_value()) return status;
  fault->field = Shown(absl::StrCat(prefix, fault->field), kMaxFieldBytes);
  return Make(status.code(), *fault);
}

absl::Status Renamed(absl::string_view from, absl::string_view to, const absl::Status& status) {
  const std::optional<contract::Fault> fault = FaultOf(status);
  if (!fault.has_value() || !absl::StartsWith(fault->field, from)) return status;
  const std::string rest = fault->field.substr(from.size());
  if (!rest.empty() && rest.front() != '.' && rest.front() != '[') return status;
  return Make(status.code(), {Shown(absl::StrCat(to, rest), kMaxFieldBytes), fault->expected, fault->got});
}

absl::Status Blame(absl::string_view field, absl::string_view expected, const absl::Status& status) {
  if (status.ok()) return status;
  return Make(status.code(), {Shown(field, kMaxFieldBytes), Shown(expected, kMaxExpectedBytes),
                              Shown(status.message(), kMaxBlamedBytes)});
}

}  // namespace attnd::errors
