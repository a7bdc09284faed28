// What exceeds a limit is refused with RESOURCE_EXHAUSTED and the limit's name, and harms no other call.

#include <string>
#include <thread>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

TEST(LimitsTest, MessageOverTheLimit) {
  server::Options options = TestOptions();
  options.limits.max_request_bytes = 100000;
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  const grpc::Status refused = server.Compute(ValidRequest({.batch = 1, .query_length = 9000}), &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("100000"));
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
}

TEST(LimitsTest, MessageUpToTheLimit) {
  v1::ComputeAttentionRequest request = ValidRequest();
  server::Options options = TestOptions();
  options.limits.max_request_bytes = static_cast<std::int64_t>(request.ByteSizeLong());
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(request, &response).ok());
  request.mutable_model()->push_back('x');
  EXPECT_EQ(server.Compute(request, &response).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

// A few kilobytes of request may ask for gigabytes of result: many queries of one element, values of many.
TEST(LimitsTest, ResultOverTheLimitIsRefusedBeforeItIsAllocated) {
  v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 1 << 20, .key_length = 1, .head_dim = 1});
  request.set_value_head_dim(4096);
  request.set_v(RandomFloats(kHeads * 4096, 1));
  TestServer server;
  v1::ComputeAttentionResponse response;
  const grpc::Status refused = server.Compute(request, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("268435456 bytes (--max_result_bytes)"));
  EXPECT_EQ(DetailOf(refused).field(), "output");
}

TEST(LimitsTest, LogSumExpCountsTowardsTheResult) {
  v1::ComputeAttentionRequest request = ValidRequest();
  server::Options options = TestOptions();
  options.limits.max_result_bytes = 2 * kHeads * 5 * 4 * 4;
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(request, &response).ok());
  request.set_return_log_sum_exp(true);
  EXPECT_EQ(server.Compute(request, &response).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST(LimitsTest, HeaderOverTheLimit) {
  TestServer server;
  v1::ComputeAttentionRequest request = ValidRequest();
  constexpr std::int64_t kMaxHeaderBytes = server::Limits().max_header_bytes;
  request.set_model(std::string(kMaxHeaderBytes, 'a'));
  v1::ComputeAttentionResponse response;
  const grpc::Status refused = server.Compute(request, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr(std::to_string(kMaxHeaderBytes)));
}

TEST(LimitsTest, MaxDim) {
  server::Options options = TestOptions();
  options.limits.max_dim = 7;
  options.limits.max_head_dim = 4;
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
  const grpc::Status longer = server.Compute(ValidRequest({.query_length = 8}), &response);
  EXPECT_EQ(longer.error_message(), "query_length: expected 1 to 7, got 8");
  const grpc::Status wider = server.Compute(ValidRequest({.head_dim = 5}), &response);
  EXPECT_EQ(wider.error_message(), "head_dim: expected 1 to 4, got 5");
}

TEST(LimitsTest, CallsInFlight) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 8 << 20;
  options.limits.max_request_bytes = options.limits.max_result_bytes = 64 << 20;
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  const Shape too_large{.batch = 1, .query_length = 4096, .key_length = 4096, .head_dim = 32};
  const grpc::Status refused = server.Compute(ValidRequest(too_large), &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(),
              HasSubstr("at most 4194304 bytes, the half that one peer can have of the 8388608 bytes in flight "
                        "(--max_inflight_bytes), got"));
  EXPECT_THAT(refused.error_message(), HasSubstr("can never fit"));
  EXPECT_FALSE(DetailOf(refused).has_retry_delay());

  // More at once than fit: each is answered or refused, and afterwards nothing is held.
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 256, .key_length = 256, .head_dim = 64});
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server.Compute(request, &expected).ok());
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        v1::ComputeAttentionResponse answer;
        const grpc::Status status = server.Compute(request, &answer);
        if (status.ok()) {
          EXPECT_EQ(answer.output(), expected.output());
        } else {
          EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(server.Compute(request, &response).ok());
}

// No sum of limits overflows (seen by UBSan, and by gRPC, which would have no memory for a call).
TEST(LimitsTest, EachAtItsHighest) {
  server::Options options = TestOptions();
  for (const server::LimitRow& row : server::LimitRows()) {
    if (row.has_flag) options.limits.*row.value = row.highest;
  }
  options.listen.push_back(std::string("unix:") + testing::TempDir() + "attnd_limits_test.sock");
  options.shared_memory = true;
  TestServer server(options);
  v1::ComputeAttentionResponse response;
  const grpc::Status status = server.Compute(ValidRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();

  // A table of a few bytes that reaches as far as T5's formula allows is still refused before it is allocated.
  v1::UploadTableRequest upload;
  upload.set_model("far");
  upload.mutable_table()->set_heads(1);
  v1::T5Buckets& t5 = *upload.mutable_table()->mutable_t5();
  t5.set_num_buckets(32);
  t5.set_max_distance(std::int64_t{1} << 48);
  for (int i = 0; i < 32; ++i) t5.add_values(0);
  grpc::ClientContext context;
  v1::UploadTableResponse uploaded;
  const grpc::Status refused = server.models().UploadTable(&context, upload, &uploaded);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED) << refused.error_message();
  EXPECT_EQ(DetailOf(refused).field(), "table.t5.max_distance");
}

// A kilobyte of gzip may become a megabyte of message: what is compressed is refused before it is unpacked.
TEST(LimitsTest, CompressedRequestsAreRefused) {
  TestServer server;
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    v1::ComputeAttentionRequest request = ValidRequest();
    request.set_q(std::string(1 << 20, '\0'));
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    v1::ComputeAttentionResponse response;
    const grpc::Status refused = server.attention().ComputeAttention(&context, request, &response);
    EXPECT_EQ(refused.error_code(), StatusCode::UNIMPLEMENTED) << refused.error_message();
  }
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
}

TEST(LimitsTest, WindowOfGetBias) {
  server::Options options = TestOptions();
  options.limits.max_bias_cells = 1000;
  TestServer server(options);
  v1::GetBiasRequest request;
  request.set_model(kModel);
  request.set_query_count(25);
  request.set_key_count(20);
  v1::GetBiasResponse response;
  grpc::ClientContext fits;
  EXPECT_TRUE(server.models().GetBias(&fits, request, &response).ok());
  request.set_key_count(21);
  grpc::ClientContext too_large;
  const grpc::Status refused = server.models().GetBias(&too_large, request, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("1000 cells (--max_bias_cells)"));
}

std::int64_t ModelBytes(TestServer& server) {
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  EXPECT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
  return info.model_bytes();
}

grpc::Status Upload(TestServer& server, const std::string& table, int values) {
  v1::UploadTableRequest request;
  request.set_model("uploaded");
  request.mutable_table()->set_name(table);
  request.mutable_table()->set_heads(1);
  for (int i = 0; i < values; ++i) request.mutable_table()->mutable_per_offset()->add_values(0.5F);
  grpc::ClientContext context;
  v1::UploadTableResponse response;
  return server.models().UploadTable(&context, request, &response);
}

TEST(LimitsTest, TablesOfAModel) {
  server::Options options = TestOptions();
  options.limits.max_model_bytes = 64 << 10;
  TestServer server(options);
  const std::int64_t before = ModelBytes(server);
  EXPECT_GT(before, 0) << "the embedded models";
  ASSERT_TRUE(Upload(server, "decoder.0", 5000).ok());
  const std::int64_t with_one = ModelBytes(server);
  EXPECT_GE(with_one, before + 5000 * 8) << "GetServerInfo says what is held now";
  const grpc::Status refused = Upload(server, "decoder.1", 5000);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("65536 bytes in the tables of a model (max_model_bytes)"));
  EXPECT_EQ(DetailOf(refused).field(), "table");
  EXPECT_EQ(ModelBytes(server), with_one) << "what was refused is given back";
  grpc::ClientContext context;
  v1::UnloadModelRequest unload;
  unload.set_name("uploaded");
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(server.models().UnloadModel(&context, unload, &unloaded).ok());
  EXPECT_EQ(ModelBytes(server), before);
}

}  // namespace
}  // namespace attnd::e2e
