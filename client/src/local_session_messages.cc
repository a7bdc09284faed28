#include "client/src/local_session_messages.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "attnd/error_detail.h"
#include "client/messages/local.pb.h"
#include "client/src/decode.h"
#include "client/src/protobuf_wire.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

absl::Status StatusOfEnd(const v1::LocalSessionEnd& end) {
  if (!end.has_retry_delay() || end.detail().has_retry_delay()) return StatusOf(end);
  v1::LocalSessionEnd whole = end;
  *whole.mutable_detail()->mutable_retry_delay() = end.retry_delay();
  return StatusOf(whole);
}

}  // namespace

std::string EncodeLocalOpening(const SessionRequest& request) {
  const std::string opening = EncodeOpening(request);
  std::string message;
  AppendVarint(BytesTag(v1::LocalRequest::kSessionFieldNumber), message);
  AppendVarint(opening.size(), message);
  return message + opening;
}

std::string EncodeLocalClose() {
  v1::LocalRequest message;
  message.mutable_session_close();
  return message.SerializeAsString();
}

LocalStep::LocalStep(const v1::SessionStep& step, const StepRequest& request, const StepSizes& sizes) {
  std::string& text = message_.text();
  AppendVarint(BytesTag(v1::SessionRequest::kStepFieldNumber), text);
  AppendVarint(step.ByteSizeLong(), text);
  step.AppendToString(&text);
  const std::array<bool, 3> shared = {step.has_q_shared(), step.has_k_shared(), step.has_v_shared()};
  const bool* is_shared = shared.data();
  for (const StepTensor& tensor : TensorsOf(request, sizes)) {
    if (!*is_shared++ && tensor.view.data != nullptr) {
      message_.AddTensor(tensor.field, tensor.view.data, static_cast<std::size_t>(tensor.bytes));
    }
  }
  AppendVarint(BytesTag(v1::LocalRequest::kSessionFieldNumber), head_);
  AppendVarint(message_.size(), head_);
}

absl::StatusOr<LocalSessionReply> DecodeLocalReply(absl::Span<const unsigned char> datagram) {
  SplitReply split;
  v1::LocalSessionEnd end;
  int kind = 0;  // the number of the field found
  CodedInputStream input(datagram.data(), static_cast<int>(datagram.size()));
  input.PushLimit(static_cast<int>(datagram.size()));
  const bool right = ForEachField(input, [&](std::uint32_t tag) {
    if (tag == BytesTag(v1::LocalReply::kSessionFieldNumber)) {
      kind = v1::LocalReply::kSessionFieldNumber;
      return Within(input, [&] { return SplitFields(input, split); });
    }
    if (tag == BytesTag(v1::LocalReply::kSessionEndFieldNumber)) {
      kind = v1::LocalReply::kSessionEndFieldNumber;
      return Within(input, [&] { return end.MergeFromCodedStream(&input) && input.ConsumedEntireMessage(); });
    }
    return WireFormatLite::SkipField(&input, tag);
  });
  if (!right || kind == 0) return absl::InternalError("the server's datagram is no message of a session");
  LocalSessionReply reply;
  if (kind == v1::LocalReply::kSessionEndFieldNumber) {
    reply.end = StatusOfEnd(end);
    return reply;
  }
  // The slice borrows the datagram's bytes.
  const grpc::Slice slice(datagram.data(), datagram.size(), grpc::Slice::STATIC_SLICE);
  split.slices = std::make_shared<std::vector<grpc::Slice>>(1, slice);
  absl::StatusOr<SessionAnswer> answer = DecodeAnswer(split);
  if (!answer.ok()) return answer.status();
  reply.answer = *std::move(answer);
  return reply;
}

}  // namespace attnd::client
