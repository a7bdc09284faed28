#include "fake_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace attnd::client {
namespace {

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::string Bytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

// One row: `q` against `count` keys.
void Row(const float* q, const float* k, const float* v, std::size_t count, std::size_t dim, std::size_t value_dim,
         float* out, float& log_sum_exp) {
  std::vector<double> logits(count);
  for (std::size_t j = 0; j < count; ++j) {
    for (std::size_t d = 0; d < dim; ++d) logits[j] += static_cast<double>(q[d]) * static_cast<double>(k[j * dim + d]);
  }
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& logit : logits) sum += logit = std::exp(logit - highest);
  for (std::size_t d = 0; d < value_dim; ++d) {
    double value = 0;
    for (std::size_t j = 0; j < count; ++j) value += logits[j] / sum * static_cast<double>(v[j * value_dim + d]);
    out[d] = static_cast<float>(value);
  }
  log_sum_exp = static_cast<float>(highest + std::log(sum));
}

}  // namespace

void PlainAttention(const v1::ComputeAttentionRequest& r, std::string& output, std::string& log_sum_exp) {
  const auto heads = static_cast<std::size_t>(r.heads()), group = heads / static_cast<std::size_t>(r.kv_heads());
  const auto rows = static_cast<std::size_t>(r.query_length()), keys = static_cast<std::size_t>(r.key_length());
  const auto dim = static_cast<std::size_t>(r.head_dim()), value_dim = static_cast<std::size_t>(r.value_head_dim());
  const std::vector<float> q = Floats(r.q()), k = Floats(r.k()), v = Floats(r.v());
  const std::size_t all_heads = static_cast<std::size_t>(r.batch()) * heads;
  std::vector<float> out(all_heads * rows * value_dim), lse(all_heads * rows);
  for (std::size_t h = 0; h < all_heads; ++h) {
    const std::size_t key_head = h / group;
    for (std::size_t i = 0; i < rows; ++i) {
      const std::size_t row = h * rows + i;
      Row(&q[row * dim], &k[key_head * keys * dim], &v[key_head * keys * value_dim], keys, dim, value_dim,
          &out[row * value_dim], lse[row]);
    }
  }
  output = Bytes(out);
  log_sum_exp = Bytes(lse);
}

grpc::Status FakeAttention::ComputeAttention(grpc::ServerContext* context, const v1::ComputeAttentionRequest* request,
                                             v1::ComputeAttentionResponse* response) {
  if (const Handler current = handler.get()) return current(context, *request, *response);
  PlainAttention(*request, *response->mutable_output(), *response->mutable_log_sum_exp());
  if (!request->return_log_sum_exp()) response->clear_log_sum_exp();
  response->set_version(7);
  response->set_content_hash("abc");
  response->set_dtype(request->output_dtype());
  response->mutable_queue_time()->set_nanos(2000);
  response->mutable_compute_time()->set_seconds(1);
  response->mutable_compute_time()->set_nanos(500000000);
  return grpc::Status::OK;
}

grpc::Status FakeAttention::StreamAttention(grpc::ServerContext* context, Pieces* stream) {
  ++streams;
  const bool asks = context->client_metadata().count("attnd-asks") != 0;
  asked += asks ? 1 : 0;
  if (busy) {
    context->AddTrailingMetadata("attnd-ask", "1");
    return {grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"};
  }
  if (asks) {
    context->AddInitialMetadata("attnd-let-in", "1");
    stream->SendInitialMetadata();
  }
  std::vector<v1::StreamAttentionRequest> waiting;
  const auto answer = [&](const v1::StreamAttentionRequest& piece) {
    v1::ComputeAttentionRequest request = piece.call();
    request.set_q(piece.q());
    request.set_k(piece.k());
    request.set_v(piece.v());
    v1::StreamAttentionResponse response;
    response.set_id(piece.id());
    response.set_going_away(going_away);
    const grpc::Status status = ComputeAttention(context, &request, response.mutable_result());
    response.set_code(status.error_code());
    response.set_message(status.error_message());
    response.set_output(std::move(*response.mutable_result()->mutable_output()));
    response.set_log_sum_exp(std::move(*response.mutable_result()->mutable_log_sum_exp()));
    response.mutable_result()->clear_output();
    response.mutable_result()->clear_log_sum_exp();
    stream->Write(response);
  };
  v1::StreamAttentionRequest piece;
  int read = 0;
  while (stream->Read(&piece)) {
    ++pieces;
    last_pieces += piece.more() ? 0 : 1;
    if (breaks_after >= 0 && read++ >= breaks_after) return {grpc::StatusCode::UNAVAILABLE, "broken"};
    waiting.push_back(std::move(piece));
    if (waiting.size() < pieces_at_once) continue;
    for (auto next = waiting.rbegin(); next != waiting.rend(); ++next) answer(*next);
    waiting.clear();
  }
  for (auto next = waiting.rbegin(); next != waiting.rend(); ++next) answer(*next);
  return grpc::Status::OK;
}

FakeServer::FakeServer(const std::vector<grpc::Service*>& services, const std::string& address) {
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  if (!address.empty()) builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  for (grpc::Service* service : services) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

}  // namespace attnd::client
