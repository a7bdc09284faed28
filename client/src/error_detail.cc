#include "attnd/error_detail.h"

#include <cstdint>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/messages/types.pb.h"
#include "client/src/proto_time.h"

namespace attnd {

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrorDetailUrl);
  client::v1::ErrorDetail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  ErrorDetail found{detail.field(), detail.expected(), detail.got()};
  if (detail.has_retry_delay()) {
    found.retry_delay = client::ToDuration(detail.retry_delay());
  }
  return found;
}

bool AnsweredByServer(const absl::Status& status) { return status.GetPayload(kAnsweredUrl).has_value(); }

absl::Status ErrorWithDetail(absl::StatusCode code, const ErrorDetail& detail) {
  absl::Status status(code, absl::StrCat(detail.field, ": expected ", detail.expected, ", got ", detail.got));
  client::v1::ErrorDetail payload;
  payload.set_field(detail.field);
  payload.set_expected(detail.expected);
  payload.set_got(detail.got);
  if (detail.retry_delay.has_value()) {
    absl::Duration rest;
    payload.mutable_retry_delay()->set_seconds(absl::IDivDuration(*detail.retry_delay, absl::Seconds(1), &rest));
    payload.mutable_retry_delay()->set_nanos(static_cast<std::int32_t>(absl::ToInt64Nanoseconds(rest)));
  }
  status.SetPayload(kErrorDetailUrl, absl::Cord(payload.SerializeAsString()));
  return status;
}

}  // namespace attnd
