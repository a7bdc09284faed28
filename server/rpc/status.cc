#include "server/rpc/status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"

namespace attnd::server {
namespace {

constexpr char kErrorDetailUrl[] = "type.googleapis.com/attnd.v1.ErrorDetail";

// HTTP/2 headers carry message and details: short enough to fit beside others in the customary 8 KiB.
constexpr std::size_t kMaxGotBytes = 200;
constexpr std::size_t kMaxMessageBytes = 2000;

std::string Cut(absl::string_view text, std::size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  return absl::StrCat(text.substr(0, max_bytes), "...");
}

v1::ErrorDetail Detail(absl::string_view field, absl::string_view expected, absl::string_view got) {
  v1::ErrorDetail detail;
  detail.set_field(std::string(field));
  detail.set_expected(std::string(expected));
  detail.set_got(Cut(got, kMaxGotBytes));
  return detail;
}

// The status's ErrorDetail, serialised: its payload, or what its message says where the engine, which knows no
// protobuf, wrote it as "field: expected ..., got ...". Empty if there is none.
std::string ErrorDetailOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kErrorDetailUrl); payload.has_value()) return std::string(*payload);
  const absl::string_view message = status.message();
  constexpr absl::string_view kExpected = ": expected ";
  constexpr absl::string_view kGot = ", got ";
  const std::size_t expected = message.find(kExpected);
  const std::size_t got = message.rfind(kGot);
  if (expected == absl::string_view::npos || got == absl::string_view::npos || got < expected + kExpected.size())
    return "";
  const std::size_t from = expected + kExpected.size();
  return Detail(message.substr(0, expected), message.substr(from, got - from), message.substr(got + kGot.size()))
      .SerializeAsString();
}

// google.rpc.Status {int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3}, which Debian's
// protobuf does not ship.
std::string RpcStatus(int code, const std::string& message, const google::protobuf::Any& detail) {
  using google::protobuf::internal::WireFormatLite;
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    WireFormatLite::WriteInt32(1, code, &coded);
    WireFormatLite::WriteString(2, message, &coded);
    WireFormatLite::WriteBytes(3, detail.SerializeAsString(), &coded);
  }
  return bytes;
}

}  // namespace

absl::Status FieldError(absl::StatusCode code, absl::string_view field, absl::string_view expected,
                        absl::string_view got) {
  const std::string shown = Cut(absl::Utf8SafeCEscape(got.substr(0, kMaxGotBytes + 1)), kMaxGotBytes);
  absl::Status status(code, absl::StrCat(field, ": expected ", expected, ", got ", shown));
  status.SetPayload(kErrorDetailUrl, absl::Cord(Detail(field, expected, shown).SerializeAsString()));
  return status;
}

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping; the call was not begun"); }

std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kErrorDetailUrl);
  v1::ErrorDetail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = Cut(status.message(), kMaxMessageBytes);
  const std::string bytes = ErrorDetailOf(status);
  if (bytes.empty()) return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
  google::protobuf::Any detail;
  detail.set_type_url(kErrorDetailUrl);
  detail.set_value(bytes);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      RpcStatus(static_cast<int>(status.code()), message, detail));
}

}  // namespace attnd::server
