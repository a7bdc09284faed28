#include "client/src/status.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <string>

#include "absl/strings/match.h"
#include "client/messages/any.pb.h"

namespace attnd::client {
namespace {

using google::protobuf::internal::WireFormatLite;

// Returns the ErrorDetail in a serialised google.rpc.Status {code = 1, message = 2, repeated google.protobuf.Any
// details = 3}; empty if there is none. Read by field number, because a second copy of its descriptor in one process
// (the caller may have one) is fatal.
std::string FindErrorDetail(const std::string& rpc_status) {
  constexpr std::uint32_t kDetails = WireFormatLite::MakeTag(3, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  google::protobuf::io::CodedInputStream input(reinterpret_cast<const std::uint8_t*>(rpc_status.data()),
                                               static_cast<int>(rpc_status.size()));
  while (const std::uint32_t tag = input.ReadTag()) {
    if (tag != kDetails) {
      if (!WireFormatLite::SkipField(&input, tag)) return "";
      continue;
    }
    std::string bytes;
    v1::Any any;
    if (!WireFormatLite::ReadBytes(&input, &bytes) || !any.ParseFromString(bytes)) return "";
    if (absl::EndsWith(any.type_url(), "/attnd.v1.ErrorDetail")) return any.value();
  }
  return "";
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!status.error_details().empty()) result.SetPayload(kAnsweredUrl, absl::Cord());
  if (std::string detail = FindErrorDetail(status.error_details()); !detail.empty()) {
    result.SetPayload(kErrorDetailUrl, absl::Cord(detail));
  }
  return result;
}

}  // namespace attnd::client
