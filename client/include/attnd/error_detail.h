// The machine-readable cause of a refused request. The functions are thread-safe; an ErrorDetail is a plain struct.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace attnd {

// The field at fault. The status message says the same in words.
struct ErrorDetail {
  std::string field;     // as a path: "q", "heads", "table.t5.values"
  std::string expected;  // what would have been accepted
  std::string got;       // what was given
  // The server's estimate of when the same call may be admitted. Set if it lacked memory that other calls hold.
  std::optional<absl::Duration> retry_delay = std::nullopt;
};

// URL of the status payload that carries it, as a serialised attnd.v1.ErrorDetail.
inline constexpr char kErrorDetailUrl[] = "type.googleapis.com/attnd.v1.ErrorDetail";

// URL of the empty payload that marks a status sent by the server.
inline constexpr char kAnsweredUrl[] = "attnd/answered";

// The detail of a failed call; nullopt if the status has none (no single field was at fault, or the server was not
// reached).
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

// Whether the server itself sent this status. Distinguishes the UNAVAILABLE of a server that is stopping from the
// UNAVAILABLE of a server that cannot be reached.
bool AnsweredByServer(const absl::Status& status);

// A status with this code whose message and payload name the field at fault.
absl::Status ErrorWithDetail(absl::StatusCode code, const ErrorDetail& detail);

}  // namespace attnd
