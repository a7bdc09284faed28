#include "fake_session.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace attnd::client {

v1::SessionReply FakeSessionAnswer(const v1::SessionRequest& request) {
  v1::SessionReply reply;
  if (request.has_open()) {
    reply.mutable_opened()->set_version(1);
    reply.mutable_opened()->set_content_hash("hash");
    reply.mutable_opened()->set_reserved_bytes(1000);
    reply.mutable_opened()->set_page_tokens(64);
    return reply;
  }
  const v1::SessionStep& step = request.step();
  v1::SessionStepResult& result = *reply.mutable_result();
  result.set_step(step.step());
  result.add_lengths(static_cast<std::int64_t>(request.k().size() + request.v().size()));
  result.set_dtype(v1::DTYPE_FP32);
  reply.set_output(request.q());
  if (step.return_log_sum_exp()) {
    for (std::size_t row = 0; row < request.q().size(); row += kFakeDim * sizeof(float)) {
      reply.mutable_log_sum_exp()->append(request.q(), row, sizeof(float));
    }
  }
  return reply;
}

grpc::Status FakeSessions::Attend(grpc::ServerContext*, Stream* stream) {
  v1::SessionRequest request;
  while (stream->Read(&request)) {
    v1::SessionReply reply = FakeSessionAnswer(request);
    if (reply.has_opened()) {
      ++opened;
      reply.mutable_opened()->set_max_message_bytes(max_message_bytes);
    }
    stream->Write(reply);
  }
  return grpc::Status::OK;
}

FakeLocalSessions::FakeLocalSessions(FakeLocalServer& server) : server_(server) {
  server.shares_memory = true;
  server.OnHello([](const auto& peer, const v1::LocalRequest&) {
    v1::LocalWelcome welcome;
    welcome.set_sessions(true);
    return FakeLocalServer::Welcome(peer, welcome);
  });
  server.OnSession([this](const auto& peer, const v1::LocalRequest& request) { return Answer(peer, request); });
  server.OnSessionClose([this](const auto& peer, const v1::LocalRequest&) {
    ++closed;
    return SendEnd(peer, {});
  });
}

v1::SessionReply FakeLocalSessions::AnswerOf(const v1::LocalRequest& request) {
  v1::SessionRequest session = request.session();
  const v1::SessionStep step = session.step();
  if (session.has_open()) ++opened;
  if (session.has_step()) {
    absl::MutexLock lock(&mutex_);
    steps_.push_back(step);
  }
  // Each has [1, 1, length, kFakeDim] floats.
  const auto read = [&](const v1::SharedTensor& shared, std::int64_t length, std::string* to) {
    const auto bytes = static_cast<std::size_t>(length * kFakeDim) * sizeof(float);
    if (const unsigned char* const from = server_.SharedData(shared, bytes)) {
      to->assign(reinterpret_cast<const char*>(from), bytes);
    }
  };
  if (step.has_q_shared()) read(step.q_shared(), step.query_length(), session.mutable_q());
  if (step.has_k_shared()) read(step.k_shared(), step.key_length(), session.mutable_k());
  if (step.has_v_shared()) read(step.v_shared(), step.key_length(), session.mutable_v());
  v1::SessionReply reply = FakeSessionAnswer(session);
  const auto write = [&](const v1::SharedTensor& shared, std::string& bytes) {
    if (unsigned char* const to = server_.SharedData(shared, bytes.size())) std::copy(bytes.begin(), bytes.end(), to);
    bytes.clear();
  };
  if (step.has_output_shared()) write(step.output_shared(), *reply.mutable_output());
  if (step.has_log_sum_exp_shared()) write(step.log_sum_exp_shared(), *reply.mutable_log_sum_exp());
  return reply;
}

bool FakeLocalSessions::Answer(const FakeLocalServer::Peer& peer, const v1::LocalRequest& request) {
  if (request.session().has_open()) {
    absl::MutexLock lock(&mutex_);
    opener_ = peer;
  }
  return SendReply(peer, AnswerOf(request));
}

bool FakeLocalSessions::SendReply(const FakeLocalServer::Peer& peer, const v1::SessionReply& reply) {
  v1::LocalReply message;
  *message.mutable_session() = reply;
  EXPECT_LE(message.ByteSizeLong(), 65536U);
  return FakeLocalServer::Send(peer, message.SerializeAsString());
}

bool FakeLocalSessions::SendEnd(const FakeLocalServer::Peer& peer, const v1::LocalSessionEnd& end) {
  v1::LocalReply message;
  *message.mutable_session_end() = end;
  return FakeLocalServer::Send(peer, message.SerializeAsString());
}

bool FakeLocalSessions::SendEnd(const FakeLocalServer::Peer& peer, int code, const std::string& message) {
  v1::LocalSessionEnd end;
  end.set_code(code);
  end.set_message(message);
  return SendEnd(peer, end);
}

}  // namespace attnd::client
