#include "server/rpc/status.h"

#include <string>
#include <utility>

#include "contract/request.h"
#include "errors/shown.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "memory/no_memory.h"

namespace attnd::server {
namespace {

constexpr char kErrorDetailUrl[] = "type.googleapis.com/attnd.v1.ErrorDetail";

// HTTP/2 headers carry message and details: short enough to fit beside others in the customary 8 KiB.
constexpr std::size_t kMaxMessageBytes = 2000;
// A longer one stands in the details only beside a field at fault: both together would not fit.
constexpr std::size_t kMaxRepeatedBytes = 500;

// google.rpc.Status {int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3}, which Debian's
// protobuf does not ship.
std::string RpcStatus(int code, const std::string& message, const std::optional<v1::ErrorDetail>& detail) {
  using google::protobuf::internal::WireFormatLite;
  std::string bytes;
  std::string any_bytes;
  if (detail.has_value()) {
    google::protobuf::Any any;
    any.set_type_url(kErrorDetailUrl);
    any.set_value(detail->SerializeAsString());
    any_bytes = any.SerializeAsString();
  }
  // The stream below must not fail: it writes once more when it goes.
  constexpr std::size_t kTagsAndLengths = 64;
  bytes.reserve(message.size() + any_bytes.size() + kTagsAndLengths);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    WireFormatLite::WriteInt32(1, code, &coded);
    WireFormatLite::WriteString(2, message, &coded);
    if (detail.has_value()) WireFormatLite::WriteBytes(3, any_bytes, &coded);
  }
  return bytes;
}

grpc::Status WithDetails(const absl::Status& status) {
  const std::string message = errors::Shown(status.message(), kMaxMessageBytes);
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  const bool twice = detail.has_value() || message.size() <= kMaxRepeatedBytes;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      twice ? RpcStatus(static_cast<int>(status.code()), message, detail) : "");
}

}  // namespace

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping; the call was not begun"); }

std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status) {
  std::optional<contract::Fault> fault = errors::FaultOf(status);
  if (!fault.has_value()) return std::nullopt;
  v1::ErrorDetail detail;
  detail.set_field(std::move(fault->field));
  detail.set_expected(std::move(fault->expected));
  detail.set_got(std::move(fault->got));
  return detail;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  grpc::Status shown;
  if (memory::CatchNoMemoryIn([&] { shown = WithDetails(status); }).ok()) return shown;
  // Short enough to lie in the string itself.
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory");
}

}  // namespace attnd::server
