#include "attnd/error_detail.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/messages/types.pb.h"

namespace attnd {

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrorDetailUrl);
  client::v1::ErrorDetail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return ErrorDetail{detail.field(), detail.expected(), detail.got()};
}

bool AnsweredByServer(const absl::Status& status) { return status.GetPayload(kAnsweredUrl).has_value(); }

absl::Status ErrorWithDetail(absl::StatusCode code, const ErrorDetail& detail) {
  absl::Status status(code, absl::StrCat(detail.field, ": expected ", detail.expected, ", got ", detail.got));
  client::v1::ErrorDetail payload;
  payload.set_field(detail.field);
  payload.set_expected(detail.expected);
  payload.set_got(detail.got);
  status.SetPayload(kErrorDetailUrl, absl::Cord(payload.SerializeAsString()));
  return status;
}

}  // namespace attnd
