// The zero-copy path is ordinary gRPC and protobuf: the same bytes for raw, generated and reordered messages, over TCP
// and Unix sockets, with health and reflection beside it.

#include <filesystem>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

constexpr char kMethod[] = "/attnd.v1.AttentionService/ComputeAttention";

std::vector<grpc::Slice> Cut(const std::string& bytes, std::size_t size) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    slices.emplace_back(bytes.substr(at, size));
  }
  return slices;
}

TEST(WireTest, RawAndGeneratedMessagesGetTheSameBytes) {
  TestServer server;
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 2, .query_length = 130, .key_length = 150, .head_dim = 24});
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server.Compute(request, &expected).ok());
  ExpectMatchesReference(request, expected);
  const std::string bytes = request.SerializeAsString();
  for (const std::size_t size : {std::size_t{1000}, std::size_t{4097}, bytes.size()}) {
    std::string reply;
    const grpc::Status status = RawCall(server.channel(), kMethod, Cut(bytes, size), &reply);
    ASSERT_TRUE(status.ok()) << status.error_message();
    v1::ComputeAttentionResponse response;
    ASSERT_TRUE(response.ParseFromString(reply));
    EXPECT_EQ(response.output(), expected.output());
    EXPECT_EQ(response.content_hash(), expected.content_hash());
    EXPECT_EQ(response.SerializeAsString(), reply) << "the reply is not as protobuf would write it";
  }
}

TEST(WireTest, FieldsInAnyOrderWithUnknownAndRepeatedOnes) {
  TestServer server;
  const v1::ComputeAttentionRequest request = ValidRequest();
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server.Compute(request, &expected).ok());
  v1::ComputeAttentionRequest tensors;
  tensors.set_q(request.q());
  tensors.set_k(request.k());
  tensors.set_v(request.v());
  v1::ComputeAttentionRequest others = request;
  others.clear_q();
  others.clear_k();
  others.clear_v();
  v1::ComputeAttentionRequest wrong;
  wrong.set_heads(99);
  wrong.set_q("wrong");
  wrong.GetReflection()->MutableUnknownFields(&wrong)->AddVarint(5000, 1);
  std::string reply;
  const grpc::Status status = RawCall(server.channel(), kMethod,
                                      {grpc::Slice(wrong.SerializeAsString()), grpc::Slice(tensors.SerializeAsString()),
                                       grpc::Slice(others.SerializeAsString())},
                                      &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(response.ParseFromString(reply));
  EXPECT_EQ(response.output(), expected.output());
}

TEST(WireTest, BytesThatAreNoMessageAreInvalid) {
  TestServer server;
  for (const std::string& bytes :
       {std::string("\xff\xff\xff", 3), std::string("\0", 1), std::string("\xa2\x06\x7f", 3)}) {
    std::string reply;
    EXPECT_EQ(RawCall(server.channel(), kMethod, {grpc::Slice(bytes)}, &reply).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
}

TEST(WireTest, EveryFieldOfTheReplyIsFilled) {
  TestServer server;
  v1::ComputeAttentionRequest request = ValidRequest();
  request.set_return_log_sum_exp(true);
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(server.Compute(request, &response).ok());
  ExpectMatchesReference(request, response);
  EXPECT_EQ(response.version(), 2u);  // the second upload
  EXPECT_EQ(response.content_hash().size(), 64u);
  EXPECT_EQ(response.dtype(), v1::DTYPE_FP32);
  EXPECT_EQ(response.log_sum_exp().size(), 2u * kHeads * 5 * 4);
  EXPECT_TRUE(response.has_queue_time());
  EXPECT_TRUE(response.has_compute_time());
}

TEST(WireTest, SomeOfTheHeadsGiveWhatAllOfThemGive) {
  TestServer server;
  const v1::ComputeAttentionRequest whole = ValidRequest({.batch = 1});
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server.Compute(whole, &expected).ok());
  std::string joined;
  for (std::int64_t head = 0; head < kHeads; ++head) {
    v1::ComputeAttentionRequest part = whole;
    part.set_heads(1);
    part.set_first_head(head);
    const auto of_head = [head](const std::string& bytes) {
      const std::size_t size = bytes.size() / kHeads;
      return bytes.substr(static_cast<std::size_t>(head) * size, size);
    };
    part.set_q(of_head(whole.q()));
    part.set_k(of_head(whole.k()));
    part.set_v(of_head(whole.v()));
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server.Compute(part, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    joined += response.output();
  }
  EXPECT_EQ(joined, expected.output());
}

TEST(WireTest, UnixSocketAndTcpSideBySide) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "attnd_wire_test.sock";
  server::Options options = TestOptions();
  options.listen.push_back("unix:" + path.string());
  std::string output;
  {
    TestServer server(options);
    EXPECT_EQ(server.server().addresses()[1], options.listen[1]);
    EXPECT_EQ(server.address().find("127.0.0.1:"), 0u);
    EXPECT_NE(server.address(), "127.0.0.1:0");
    v1::ComputeAttentionResponse over_tcp;
    ASSERT_TRUE(server.Compute(ValidRequest(), &over_tcp).ok());
    const auto stub = v1::AttentionService::NewStub(NewChannel(options.listen[1]));
    grpc::ClientContext context;
    v1::ComputeAttentionResponse over_unix;
    ASSERT_TRUE(stub->ComputeAttention(&context, ValidRequest(), &over_unix).ok());
    EXPECT_EQ(over_unix.output(), over_tcp.output());
    const auto second = server::Server::Start(options);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable) << "a running server's socket was taken";
    grpc::ClientContext again;
    EXPECT_TRUE(stub->ComputeAttention(&again, ValidRequest(), &over_unix).ok());
  }
  TestServer restarted(options);  // whatever the first one left behind
}

TEST(WireTest, HealthOfEachService) {
  TestServer server;
  for (const char* name :
       {"", "attnd.v1.AttentionService", "attnd.v1.ModelService", "attnd.v1.ServerService", "liveness"}) {
    EXPECT_EQ(HealthOf(server.channel(), name), Health::kServing) << name;
  }
  EXPECT_EQ(HealthOf(server.channel(), "nobody"), Health::kUnknown);
}

TEST(WireTest, ReflectionListsTheServices) {
  TestServer server;
  // ServerReflectionRequest.list_services is field 7; the stream takes one request as a unary call would send it.
  std::string reply;
  const grpc::Status status =
      RawCall(server.channel(), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              {grpc::Slice(std::string("\x3a\x01*"))}, &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (const char* name :
       {"attnd.v1.AttentionService", "attnd.v1.ModelService", "attnd.v1.ServerService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(reply, testing::HasSubstr(name));
  }
}

TEST(WireTest, ServerInfoTellsEveryLimit) {
  server::Options options = TestOptions();
  options.limits.max_request_bytes = 1 << 20;
  TestServer server(options);
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
  EXPECT_NE(info.version(), "");
  EXPECT_THAT(info.available_kernels(), testing::Contains(info.kernel()));
  EXPECT_EQ(info.threads(), 2);
  EXPECT_GT(info.started_at().seconds(), 1700000000);
  EXPECT_EQ(info.limits().max_request_bytes(), 1 << 20);
  const google::protobuf::Descriptor* const limits = v1::Limits::descriptor();
  for (int i = 0; i < limits->field_count(); ++i) {
    const std::string& name = limits->field(i)->name();
    // 0: this server shares no memory, and peers have as many connections as stay free.
    if (name == "max_shared_bytes" || name == "max_peer_connections") continue;
    EXPECT_GT(info.limits().GetReflection()->GetInt64(info.limits(), limits->field(i)), 0) << limits->field(i)->name();
  }
}

}  // namespace
}  // namespace attnd::e2e
