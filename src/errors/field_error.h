// Errors caused by one field of a request. All of them are made here. The message gives field, expected and got in
// words; a payload holds the same three as data, for code that forwards the error (server/rpc turns it into
// attnd.v1.ErrorDetail).
//
// Each room names a field as it knows it; a caller that knows more of the field's path prepends it: "values" of a bias
// table becomes "table.t5.values" if the table came from UploadTable.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"

namespace attnd::errors {

// Makes the message "field: expected ..., got ..."; FaultOf returns the three. `code` is an error code. All three are
// made printable and cut if they are long (Shown), since they often come from the caller. Thread-safe, like all
// functions here.
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

// The fault that one of these functions put into `status`; nullopt if it has none.
std::optional<contract::Fault> FaultOf(const absl::Status& status);

// The same error with `prefix` before its field: Under("table.t5.", ...) turns "values" into "table.t5.values". A
// status without a fault is returned unchanged.
absl::Status Under(absl::string_view prefix, const absl::Status& status);

// The same error with `to` in place of `from`, if the field is `from` or is below it ("from.", "from["). Any other
// status is returned unchanged.
absl::Status Renamed(absl::string_view from, absl::string_view to, const absl::Status& status);

// An error with the code of `status` that blames `field`: `got` is the message of `status`. Returns an OK status
// unchanged.
absl::Status Blame(absl::string_view field, absl::string_view expected, const absl::Status& status);

}  // namespace attnd::errors
