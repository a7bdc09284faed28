#include "e2e_support.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <random>
#include <utility>

#include "google/protobuf/any.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "kernel/reference.h"
#include "server/attention/validation.h"
#include "server/wire/codec.h"

namespace attnd::e2e {
namespace {

bias::BiasTable Table(bool bidirectional) {
  std::vector<float> values(32 * kHeads);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i) * 0.7F) * 2.0F;
  absl::StatusOr<bias::BiasTable> table = bias::BiasTable::Create(
      kHeads, bias::T5Rule{.num_buckets = 32, .max_distance = 128, .bidirectional = bidirectional, .values = values});
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

float LargestOf(const std::string& bytes) {
  float largest = 0;
  for (const float value : Floats(bytes)) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace

server::Options TestOptions() {
  server::Options options;
  options.listen = {"127.0.0.1:0"};
  options.threads = 2;
  options.drain = absl::Seconds(60);
  return options;
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

TestServer::TestServer(server::Options options) {
  absl::StatusOr<std::unique_ptr<server::Server>> server = server::Server::Start(options);
  if (!server.ok()) {
    ADD_FAILURE() << server.status();
    std::abort();
  }
  server_ = *std::move(server);
  EXPECT_TRUE(server_->registry().Upload(kModel, "decoder", Table(false), false).ok());
  EXPECT_TRUE(server_->registry().Upload(kModel, "encoder", Table(true), false).ok());
  channel_ = NewChannel(address());
  attention_ = v1::AttentionService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
  info_ = v1::ServerService::NewStub(channel_);
}

grpc::Status TestServer::Compute(const v1::ComputeAttentionRequest& request, v1::ComputeAttentionResponse* response) {
  grpc::ClientContext context;
  return attention_->ComputeAttention(&context, request, response);
}

grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::vector<grpc::Slice>& slices, std::string* reply) {
  const grpc::ByteBuffer request(slices.data(), slices.size());
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  std::promise<grpc::Status> done;
  grpc::GenericStub stub(channel);
  stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &response,
                 [&done](const grpc::Status& status) { done.set_value(status); });
  const grpc::Status status = done.get_future().get();
  grpc::Slice flat;
  if (status.ok() && response.DumpToSingleSlice(&flat).ok()) reply->assign(flat.begin(), flat.end());
  return status;
}

Health HealthOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  // HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1}: 1 SERVING, 2 NOT_SERVING.
  google::protobuf::UnknownFieldSet request;
  request.AddLengthDelimited(1, service);
  std::string bytes;
  request.SerializeToString(&bytes);
  std::string reply;
  const grpc::Status status = RawCall(channel, "/grpc.health.v1.Health/Check", {grpc::Slice(bytes)}, &reply);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return Health::kUnknown;
  google::protobuf::UnknownFieldSet response;
  if (!status.ok() || !response.ParseFromString(reply) || response.field_count() != 1) return Health::kFailed;
  return response.field(0).varint() == 1 ? Health::kServing : Health::kNotServing;
}

std::string RandomFloats(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::string bytes(static_cast<std::size_t>(count) * sizeof(float), '\0');
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(float)) {
    const float value = normal(random);
    std::memcpy(&bytes[i], &value, sizeof(float));
  }
  return bytes;
}

v1::ComputeAttentionRequest ValidRequest(const Shape& shape, unsigned seed) {
  v1::ComputeAttentionRequest request;
  request.set_model(kModel);
  request.set_batch(shape.batch);
  request.set_heads(kHeads);
  request.set_query_length(shape.query_length);
  request.set_key_length(shape.key_length);
  request.set_head_dim(shape.head_dim);
  request.set_dtype(v1::DTYPE_FP32);
  const std::int64_t queries = shape.batch * kHeads * shape.query_length * shape.head_dim;
  const std::int64_t keys = shape.batch * kHeads * shape.key_length * shape.head_dim;
  request.set_q(RandomFloats(queries, seed));
  request.set_k(RandomFloats(keys, seed + 1));
  request.set_v(RandomFloats(keys, seed + 2));
  return request;
}

v1::ErrorDetail DetailOf(const grpc::Status& status) {
  // google.rpc.Status: its third field is the list of details.
  google::protobuf::UnknownFieldSet fields;
  v1::ErrorDetail detail;
  if (!fields.ParseFromString(status.error_details())) return detail;
  for (int i = 0; i < fields.field_count(); ++i) {
    google::protobuf::Any any;
    if (fields.field(i).number() == 3 && any.ParseFromString(fields.field(i).length_delimited())) any.UnpackTo(&detail);
  }
  return detail;
}

void ExpectMatchesReference(const v1::ComputeAttentionRequest& request, const v1::ComputeAttentionResponse& response) {
  const grpc::Slice slice(request.SerializeAsString());
  const auto decoded =
      server::Decode<v1::ComputeAttentionRequest>(grpc::ByteBuffer(&slice, 1), server::Limits().max_header_bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const model::Model model(kModel, 1, "test", absl::UnixEpoch(),
                           {.tables = {{"decoder", Table(false)}}, .format = "", .architecture = ""}, "hash");
  absl::StatusOr<server::ValidAttention> valid =
      server::AttentionValidator(server::Limits()).Validate(decoded->header, decoded->tensors(), model);
  ASSERT_TRUE(valid.ok()) << valid.status();
  valid->attention.bias = &valid->bias;
  const std::vector<float> output = Floats(response.output());
  ASSERT_EQ(output.size() * sizeof(float), static_cast<std::size_t>(valid->output_bytes));
  std::vector<double> expected(output.size());
  std::vector<double> log_sum_exp(Floats(response.log_sum_exp()).size());
  kernel::Reference(valid->attention, expected.data(), log_sum_exp.empty() ? nullptr : log_sum_exp.data());

  // A logit is a sum of head_dim products, wrong by at most (head_dim + 2) epsilon times their sizes, and the bias; its
  // error is a relative error of the weight. The sum over the keys adds one epsilon a key, and all is scaled by v.
  const double epsilon = std::numeric_limits<float>::epsilon();
  const double dim = static_cast<double>(request.head_dim());
  const double logit = dim * LargestOf(request.q()) * LargestOf(request.k()) + 2;
  const double logit_error = (dim + 4) * epsilon * logit;
  const double weight_error = 2 * logit_error + (static_cast<double>(request.key_length()) + 4) * epsilon;
  for (std::size_t i = 0; i < output.size(); ++i) {
    ASSERT_NEAR(output[i], expected[i], weight_error * LargestOf(request.v())) << "output element " << i;
  }
  for (std::size_t i = 0; i < log_sum_exp.size(); ++i) {
    ASSERT_NEAR(Floats(response.log_sum_exp())[i], log_sum_exp[i], weight_error + logit_error) << "row " << i;
  }
}

}  // namespace attnd::e2e
