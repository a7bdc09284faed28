#include "server/attention/local_answer.h"

#include <array>
#include <cstddef>

#include "attnd/v1/local.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "memory/no_memory.h"
#include "server/attention/local_service.h"
#include "server/rpc/on_arena.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

void SetBytes(const Buffer& buffer, std::string& bytes) {
  bytes.assign(reinterpret_cast<const char*>(buffer.data()), buffer.size());
}

// LocalReply{answer: {id, code: RESOURCE_EXHAUSTED}}; short enough for std::string's inline buffer, so nothing is
// allocated.
std::string ShortestAnswer(std::uint64_t id) {
  using google::protobuf::internal::WireFormatLite;
  std::array<std::uint8_t, 15> bytes;
  std::uint8_t* const answer = bytes.data() + 2;  // after its tag and length
  std::uint8_t* end = WireFormatLite::WriteUInt64ToArray(v1::LocalAnswer::kIdFieldNumber, id, answer);
  end = WireFormatLite::WriteInt32ToArray(v1::LocalAnswer::kCodeFieldNumber,
                                          static_cast<std::int32_t>(absl::StatusCode::kResourceExhausted), end);
  bytes[0] = static_cast<std::uint8_t>(
      WireFormatLite::MakeTag(v1::LocalReply::kAnswerFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  bytes[1] = static_cast<std::uint8_t>(end - answer);
  return std::string(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(end - bytes.data()));
}

}  // namespace

std::string ErrorAnswer(std::uint64_t id, const absl::Status& status) {
  std::string bytes;
  const absl::Status made = memory::CatchNoMemoryIn([&] {
    OnArena<v1::LocalReply> reply;
    v1::LocalAnswer& answer = *reply->mutable_answer();
    answer.set_id(id);
    SetError(status, answer);
    bytes = reply->SerializeAsString();
  });
  return made.ok() ? bytes : ShortestAnswer(id);
}

std::string ResultAnswer(std::uint64_t id, const AttentionResult& result) {
  OnArena<v1::LocalReply> reply;
  v1::LocalAnswer& answer = *reply->mutable_answer();
  answer.set_id(id);
  *answer.mutable_result() = result.header;
  if (result.log_sum_exp.size() > 0) SetBytes(result.log_sum_exp, *answer.mutable_result()->mutable_log_sum_exp());
  if (result.output.size() > 0) SetBytes(result.output, *answer.mutable_result()->mutable_output());
  return reply->SerializeAsString();
}

std::string Welcome(const absl::Status& status, bool sessions) {
  OnArena<v1::LocalReply> reply;
  v1::LocalWelcome& welcome = *reply->mutable_welcome();
  welcome.set_code(static_cast<std::int32_t>(status.code()));
  welcome.set_message(std::string(status.message()));
  welcome.set_version(kLocalVersion);
  welcome.set_max_message_bytes(kMaxDatagramBytes);
  welcome.set_max_calls(kMaxLocalCalls);
  welcome.set_sessions(sessions && status.ok());
  return reply->SerializeAsString();
}

}  // namespace attnd::server
