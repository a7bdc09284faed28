#include "client/src/local_messages.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <utility>
#include <vector>

#include "client/messages/local.pb.h"
#include "client/src/encode.h"
#include "client/src/protobuf_wire.h"
#include "client/src/status.h"

namespace attnd::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr std::uint32_t kVersion = 1;

constexpr std::uint32_t NumberTag(int field) { return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_VARINT); }

}  // namespace

std::string EncodeHello(const std::string& user_agent) {
  v1::LocalRequest request;
  request.mutable_hello()->set_version(kVersion);
  request.mutable_hello()->set_user_agent(user_agent);
  return request.SerializeAsString();
}

std::optional<LocalOffer> ReadWelcome(absl::Span<const unsigned char> datagram) {
  v1::LocalReply reply;
  if (!reply.ParseFromArray(datagram.data(), static_cast<int>(datagram.size())) || !reply.has_welcome()) {
    return std::nullopt;
  }
  // A limit beyond what sockets accept is not a valid offer.
  constexpr std::uint32_t kMostMessageBytes = 16U << 20;
  const v1::LocalWelcome& welcome = reply.welcome();
  if (welcome.code() != 0 || welcome.version() != kVersion || welcome.max_calls() == 0) return std::nullopt;
  if (welcome.max_message_bytes() > kMostMessageBytes) return std::nullopt;
  return LocalOffer{welcome.max_message_bytes(), welcome.max_calls(), welcome.sessions()};
}

std::string EncodeCancel(std::uint64_t id) {
  v1::LocalRequest request;
  request.mutable_cancel()->set_id(id);
  return request.SerializeAsString();
}

LocalMessage::LocalMessage(const ComputeRequest& request, const Shape& shape, const WireFields& fields) {
  SmallFields(request, shape, fields).SerializeToString(&request_.text());
  const auto add = [this](int field, const void* data, std::int64_t bytes) {
    request_.AddTensor(field, data, static_cast<std::size_t>(bytes));
  };
  if (!fields.q) add(v1::ComputeAttentionRequest::kQFieldNumber, request.q.data, shape.q_bytes);
  if (!fields.k) add(v1::ComputeAttentionRequest::kKFieldNumber, request.k.data, shape.k_bytes);
  if (!fields.v) add(v1::ComputeAttentionRequest::kVFieldNumber, request.v.data, shape.v_bytes);
  answer_bytes_ = kBesideResults;
  if (!fields.output) answer_bytes_ += static_cast<std::size_t>(shape.output_bytes);
  if (!fields.log_sum_exp && request.return_log_sum_exp) {
    answer_bytes_ += static_cast<std::size_t>(shape.log_sum_exp_bytes);
  }
}

void LocalMessage::Address(std::uint64_t id, absl::Duration timeout) {
  std::string call;
  AppendVarint(NumberTag(v1::LocalCall::kIdFieldNumber), call);
  AppendVarint(id, call);
  if (timeout != absl::InfiniteDuration()) {
    v1::Duration duration;
    timespec time = absl::ToTimespec(timeout);
    duration.set_seconds(time.tv_sec);
    duration.set_nanos(static_cast<std::int32_t>(time.tv_nsec));
    AppendVarint(BytesTag(v1::LocalCall::kTimeoutFieldNumber), call);
    AppendVarint(duration.ByteSizeLong(), call);
    duration.AppendToString(&call);
  }
  AppendVarint(BytesTag(v1::LocalCall::kRequestFieldNumber), call);
  AppendVarint(request_.size(), call);
  head_.clear();
  AppendVarint(BytesTag(v1::LocalRequest::kCallFieldNumber), head_);
  AppendVarint(call.size() + request_.size(), head_);
  head_ += call;
}

std::optional<LocalAnswer> LocalAnswer::Read(absl::Span<const unsigned char> datagram) {
  LocalAnswer read;
  std::string small;  // the answer's fields except the result
  bool found = false;
  CodedInputStream input(datagram.data(), static_cast<int>(datagram.size()));
  input.PushLimit(static_cast<int>(datagram.size()));
  const auto answer = [&] {
    StringOutputStream stream(&small);
    CodedOutputStream output(&stream);
    return ForEachField(input, [&](std::uint32_t tag) {
      if (tag != BytesTag(v1::LocalAnswer::kResultFieldNumber)) return WireFormatLite::SkipField(&input, tag, &output);
      return Within(input, [&] { return SplitFields(input, read.split_); });
    });
  };
  const bool right = ForEachField(input, [&](std::uint32_t tag) {
    if (tag != BytesTag(v1::LocalReply::kAnswerFieldNumber)) return WireFormatLite::SkipField(&input, tag);
    found = true;
    return Within(input, answer);
  });
  v1::LocalAnswer message;
  if (!right || !found || !message.ParseFromString(small)) return std::nullopt;
  read.id_ = message.id();
  read.status_ = StatusOf(message);
  // The slice borrows the datagram's bytes.
  const grpc::Slice slice(datagram.data(), datagram.size(), grpc::Slice::STATIC_SLICE);
  read.split_.slices = std::make_shared<std::vector<grpc::Slice>>(1, slice);
  return read;
}

absl::StatusOr<ComputeReply> LocalAnswer::Decode(const ComputeRequest& request, const Shape& shape,
                                                 const WireFields& fields) const {
  if (!status_.ok()) return status_;
  return Fill(split_, request, shape, fields, /*in_segments=*/false);
}

}  // namespace attnd::client
