// Why a request was refused, as data. The functions are thread-safe; an ErrorDetail is a plain struct.
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
  // When the same call may be admitted, as the server guesses: where it lacked memory that other calls hold.
  std::optional<absl::Duration> retry_delay = std::nullopt;
};

// URL of the status payload that carries it, as a serialised attnd.v1.ErrorDetail.
inline constexpr char kErrorDetailUrl[] = "type.googleapis.com/attnd.v1.ErrorDetail";

// URL of the empty payload that marks a status which the server sent.
inline constexpr char kAnsweredUrl[] = "attnd/answered";

// The detail of a failed call; nullopt if the status has none (no single field was at fault, or the server was not
// reached).
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

// Whether the server itself sent this status, and nothing on the way to it: a server that is stopping answers
// UNAVAILABLE, and one that cannot be reached is reported with UNAVAILABLE too.
bool AnsweredByServer(const absl::Status& status);

// A status of this code whose message and payload say which field is at fault.
absl::Status ErrorWithDetail(absl::StatusCode code, const ErrorDetail& detail);

}  // namespace attnd
