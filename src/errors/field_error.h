// Errors that one field of a request caused: the one place where they are made. The status's message says field,
// expected and got in words; a payload has the same as data, for whoever hands the error on
// (server/rpc turns it into attnd.v1.ErrorDetail).
//
// Each room names fields in the words that it is given. Who knows more of the request's path adds it: a bias table's
// "values" becomes "table.t5.values" where the table came from UploadTable.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"

namespace attnd::errors {

// The message is "field: expected ..., got ...", and FaultOf gives the three back. `code` is an error code. All three
// are made printable (Shown), and `got`, which often comes from the caller, is cut if it is long. Thread-safe, as all
// of these.
absl::Status FieldError(absl::StatusCode code, absl::string_view field, absl::string_view expected,
                        absl::string_view got);

// FieldError for INVALID_ARGUMENT; `got` is anything that absl::StrCat takes.
template <typename Got>
absl::Status InvalidField(absl::string_view field, absl::string_view expected, const Got& got) {
  return FieldError(absl::StatusCode::kInvalidArgument, field, expected, absl::StrCat(got));
}

// `fault` as INVALID_ARGUMENT; OK for nullopt.
inline absl::Status Refusal(const std::optional<contract::Fault>& fault) {
  return fault.has_value() ? InvalidField(fault->field, fault->expected, fault->got) : absl::OkStatus();
}

// The fault that one of these functions put into `status`; nullopt if there is none.
std::optional<contract::Fault> FaultOf(const absl::Status& status);

// The same error with `prefix` before its field: Under("table.t5.", ...) makes "table.t5.values" of "values". A status
// without a fault is returned as it is.
absl::Status Under(absl::string_view prefix, const absl::Status& status);

// The same error with the field `to` where it is `from`, or where it is below `from` ("from.", "from["). Any other
// status is returned as it is.
absl::Status Renamed(absl::string_view from, absl::string_view to, const absl::Status& status);

// An error of the code of `status` that blames `field`, whose value led to it: `status`'s message is what was got.
absl::Status Blame(absl::string_view field, absl::string_view expected, const absl::Status& status);

}  // namespace attnd::errors
