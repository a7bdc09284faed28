#include "server/rpc/status.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "contract/request.h"
#include "errors/shown.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "memory/no_memory.h"
#include "server/rpc/proto_time.h"

namespace attnd::server {
namespace {

constexpr char kErrorDetailUrl[] = "type.googleapis.com/attnd.v1.ErrorDetail";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// Payload of a status: the retry delay, in nanoseconds.
constexpr char kRetryDelayUrl[] = "attnd/retry_delay";

// HTTP/2 headers carry message and details, so these must fit the usual 8 KiB together with other headers.
constexpr std::size_t kMaxMessageBytes = 2000;
// Details repeat a longer message only if there is a field at fault: twice it might not fit.
constexpr std::size_t kMaxRepeatedBytes = 500;

std::string AnyOf(const char* url, const std::string& value) {
  google::protobuf::Any any;
  any.set_type_url(url);
  any.set_value(value);
  return any.SerializeAsString();
}

// A CodedOutputStream writes once more in its destructor and must not fail there, so `bytes` is reserved beforehand.
constexpr std::size_t kTagsAndLengths = 64;

// google.rpc.RetryInfo {google.protobuf.Duration retry_delay = 1}, which Debian's protobuf does not ship.
std::string RetryInfo(absl::Duration delay) {
  const std::string duration = ToProto(delay).SerializeAsString();
  std::string bytes;
  bytes.reserve(duration.size() + kTagsAndLengths);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    google::protobuf::internal::WireFormatLite::WriteBytes(1, duration, &coded);
  }
  return bytes;
}

// google.rpc.Status {int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3}, which Debian's
// protobuf does not ship.
std::string RpcStatus(int code, const std::string& message, const std::optional<v1::ErrorDetail>& detail,
                      const std::optional<absl::Duration>& delay) {
  using google::protobuf::internal::WireFormatLite;
  std::string bytes;
  std::vector<std::string> details;
  if (detail.has_value()) details.push_back(AnyOf(kErrorDetailUrl, detail->SerializeAsString()));
  if (delay.has_value()) details.push_back(AnyOf(kRetryInfoUrl, RetryInfo(*delay)));
  std::size_t size = message.size() + kTagsAndLengths;
  for (const std::string& any : details) size += any.size();
  bytes.reserve(size);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    WireFormatLite::WriteInt32(1, code, &coded);
    WireFormatLite::WriteString(2, message, &coded);
    for (const std::string& any : details) WireFormatLite::WriteBytes(3, any, &coded);
  }
  return bytes;
}

grpc::Status WithDetails(const absl::Status& status) {
  const std::string message = errors::Shown(status.message(), kMaxMessageBytes);
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  const bool twice = detail.has_value() || message.size() <= kMaxRepeatedBytes;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      twice ? RpcStatus(static_cast<int>(status.code()), message, detail, RetryDelayOf(status)) : "");
}

}  // namespace

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping; the call was not begun"); }

void SetRetryDelay(absl::Duration delay, absl::Status& status) {
  status.SetPayload(kRetryDelayUrl, absl::Cord(absl::StrCat(absl::ToInt64Nanoseconds(delay))));
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryDelayUrl);
  std::int64_t nanoseconds = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &nanoseconds)) return std::nullopt;
  return absl::Nanoseconds(nanoseconds);
}

std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status) {
  std::optional<contract::Fault> fault = errors::FaultOf(status);
  if (!fault.has_value()) return std::nullopt;
  v1::ErrorDetail detail;
  detail.set_field(std::move(fault->field));
  detail.set_expected(std::move(fault->expected));
  detail.set_got(std::move(fault->got));
  if (const std::optional<absl::Duration> delay = RetryDelayOf(status)) *detail.mutable_retry_delay() = ToProto(*delay);
  return detail;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  grpc::Status shown;
  if (memory::CatchNoMemoryIn([&] { shown = WithDetails(status); }).ok()) return shown;
  // Short enough to be stored in the string object itself.
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory");
}

}  // namespace attnd::server
