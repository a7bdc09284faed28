#include "e2e_support.h"

#include <cmath>
#include <random>
#include <utility>

#include "google/protobuf/any.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"
#include "reference_check.h"
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

}  // namespace

server::Options TestOptions() {
  server::Options options;
  options.listen = {"127.0.0.1:0"};
  options.threads = 2;
  options.drain = absl::Seconds(60);
  // A test that makes calls wait says for how long: under a sanitizer two hundred that are slow take over a minute.
  options.max_queue_time = absl::InfiniteDuration();
  return options;
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
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  const grpc::Status status =
      test::RawCall(channel, method, context, grpc::ByteBuffer(slices.data(), slices.size()), &response);
  grpc::Slice flat;
  if (status.ok() && response.DumpToSingleSlice(&flat).ok()) reply->assign(flat.begin(), flat.end());
  return status;
}

Health HealthOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::ClientContext context;
  const absl::StatusOr<std::int64_t> status = test::ServingStatusOf(channel, service, context);
  if (absl::IsNotFound(status.status())) return Health::kUnknown;
  if (!status.ok()) return Health::kFailed;
  return *status == 1 ? Health::kServing : Health::kNotServing;
}

v1::StreamAttentionRequest PieceOf(std::uint64_t id, const v1::ComputeAttentionRequest& request) {
  v1::StreamAttentionRequest piece;
  piece.set_id(id);
  *piece.mutable_call() = request;
  piece.set_q(std::move(*piece.mutable_call()->mutable_q()));
  piece.set_k(std::move(*piece.mutable_call()->mutable_k()));
  piece.set_v(std::move(*piece.mutable_call()->mutable_v()));
  piece.mutable_call()->clear_q();
  piece.mutable_call()->clear_k();
  piece.mutable_call()->clear_v();
  return piece;
}

std::string RandomFloats(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  return test::RandomFloats(count, random);
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
      server::AttentionValidator(server::Limits())
          .Validate(decoded->header, decoded->tensors(), decoded->header.bias() == v1::BIAS_NONE ? nullptr : &model);
  ASSERT_TRUE(valid.ok()) << valid.status();
  valid->PointToBias();
  ASSERT_EQ(response.output().size(), static_cast<std::size_t>(valid->output_bytes));
  test::ExpectIsReference(valid->attention, request.q(), request.k(), request.v(), response.output(),
                          response.log_sum_exp());
}

}  // namespace attnd::e2e
