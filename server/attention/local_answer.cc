#include "server/attention/local_answer.h"

#include "attnd/v1/local.pb.h"
#include "server/attention/local_service.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

void SetBytes(const Buffer& buffer, std::string& bytes) {
  bytes.assign(reinterpret_cast<const char*>(buffer.data()), buffer.size());
}

}  // namespace

std::string ErrorAnswer(std::uint64_t id, const absl::Status& status) {
  v1::LocalReply reply;
  v1::LocalAnswer& answer = *reply.mutable_answer();
  answer.set_id(id);
  SetError(status, answer);
  return reply.SerializeAsString();
}

std::string ResultAnswer(std::uint64_t id, const AttentionResult& result) {
  v1::LocalReply reply;
  v1::LocalAnswer& answer = *reply.mutable_answer();
  answer.set_id(id);
  *answer.mutable_result() = result.header;
  if (result.log_sum_exp.size() > 0) SetBytes(result.log_sum_exp, *answer.mutable_result()->mutable_log_sum_exp());
  if (result.output.size() > 0) SetBytes(result.output, *answer.mutable_result()->mutable_output());
  return reply.SerializeAsString();
}

std::string Welcome(const absl::Status& status) {
  v1::LocalReply reply;
  v1::LocalWelcome& welcome = *reply.mutable_welcome();
  welcome.set_code(static_cast<std::int32_t>(status.code()));
  welcome.set_message(std::string(status.message()));
  welcome.set_version(kLocalVersion);
  welcome.set_max_message_bytes(kMaxDatagramBytes);
  welcome.set_max_calls(kMaxLocalCalls);
  return reply.SerializeAsString();
}

}  // namespace attnd::server
