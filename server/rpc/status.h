// From the engine's statuses to what a gRPC client sees: the one place where that is decided.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "attnd/v1/types.pb.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// An error that one field caused: the message "field: expected ..., got ..." and the same as an attnd.v1.ErrorDetail
// payload. `code` is an error code; `got` is escaped and cut if it is long, since it often comes from the caller.
absl::Status FieldError(absl::StatusCode code, absl::string_view field, absl::string_view expected,
                        absl::string_view got);

// FieldError for INVALID_ARGUMENT; `got` is anything that absl::StrCat takes.
template <typename Got>
absl::Status InvalidField(absl::string_view field, absl::string_view expected, const Got& got) {
  return FieldError(absl::StatusCode::kInvalidArgument, field, expected, absl::StrCat(got));
}

// UNAVAILABLE: this server stops, and the call was not begun, so it may be sent again elsewhere.
absl::Status StoppingError();

// The ErrorDetail that FieldError put into a status; nullopt if it has none.
std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status);

// The same code and message. An ErrorDetail payload becomes the binary status details: a serialised google.rpc.Status,
// which gRPC sends as grpc-status-details-bin.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace attnd::server
