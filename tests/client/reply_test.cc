// Replies as bytes: every form that protobuf allows is read as protobuf reads it, and nothing else is taken for an
// answer.
#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <cstring>

#include "attnd/client.h"
#include "attnd/v1/attention.pb.h"
#include "bounded.h"
#include "client/src/decode.h"
#include "fake_server.h"
#include "test_request.h"

namespace attnd::client {
namespace {

// One message, cut into slices of `piece` bytes.
grpc::ByteBuffer InPieces(const std::string& bytes, std::size_t piece) {
  std::vector<grpc::Slice> slices;
  for (std::size_t i = 0; i < bytes.size(); i += piece) slices.emplace_back(bytes.substr(i, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

class ReplyTest : public testing::Test {
 protected:
  ReplyTest() : shape_(*CheckRequest(t_.request)) {
    good_.set_version(4);
    good_.set_dtype(v1::DTYPE_FP32);
    good_.set_content_hash("hash");
    good_.mutable_compute_time()->set_nanos(5);
    std::string output(static_cast<std::size_t>(shape_.output_bytes), '\0');
    for (std::size_t i = 0; i < output.size(); ++i) output[i] = static_cast<char>(i * 7);
    good_.set_output(output);
  }

  absl::StatusOr<ComputeReply> Decode(const std::string& bytes, std::size_t piece = 1000) {
    grpc::ByteBuffer buffer = InPieces(bytes, piece);
    return DecodeReply(buffer, t_.request, shape_);
  }

  static std::string OutputOf(const ComputeReply& reply) {
    std::string bytes(reply.output.size_bytes(), '\0');
    reply.output.CopyTo(bytes.data());
    return bytes;
  }

  TestRequest t_;
  Shape shape_;
  v1::ComputeAttentionResponse good_;
};

TEST_F(ReplyTest, AnyCutGivesTheSame) {
  const std::string bytes = good_.SerializeAsString();
  for (const bool in_segments : {false, true}) {
    t_.request.output_in_segments = in_segments;
    for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{17}, bytes.size()}) {
      const auto reply = Decode(bytes, piece);
      ASSERT_TRUE(reply.ok()) << reply.status() << " in pieces of " << piece;
      EXPECT_EQ(OutputOf(*reply), good_.output()) << "in pieces of " << piece;
      EXPECT_EQ(reply->version, 4U);
      EXPECT_EQ(reply->content_hash, "hash");
    }
  }
}

TEST_F(ReplyTest, UnknownFieldsAnyOrderAndRepeats) {
  v1::ComputeAttentionResponse first, last;
  first.set_output(std::string(good_.output().size(), 'x'));
  first.set_version(1);
  last.set_version(9);
  const std::string unknown(
      "\x9a\x06\x03"
      "abc"                       // field 99, three bytes
      "\xa0\x1f\x96\x01"          // field 500, a varint
      "\xab\x1f\x08\x01\xac\x1f"  // field 501, a group
      "\xb5\x1f"
      "abcd"  // field 502, 32 bits
      "\xb9\x1f"
      "abcdefgh",  // field 503, 64 bits
      32);
  const auto reply =
      Decode(first.SerializeAsString() + unknown + good_.SerializeAsString() + unknown + last.SerializeAsString(), 5);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(OutputOf(*reply), good_.output());
  EXPECT_EQ(reply->version, 9U);
  EXPECT_EQ(reply->compute_time, absl::Nanoseconds(5));
}

TEST_F(ReplyTest, NothingElseIsAnAnswer) {
  const auto refused = [&](const std::string& bytes, const char* why) {
    const absl::Status status = Decode(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(why));
  };
  const std::string bytes = good_.SerializeAsString();
  refused("", "dtype: expected DTYPE_FP32, got DTYPE_UNSPECIFIED");
  for (const std::size_t cut : {bytes.size() - 1, bytes.size() / 2, std::size_t{1}}) {
    EXPECT_EQ(Decode(bytes.substr(0, cut)).status().code(), absl::StatusCode::kInternal) << cut;
  }
  refused(bytes + "\xff", "no protobuf message");
  refused(bytes + std::string("\x04", 1), "no protobuf message");
  refused(std::string("\xaa\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12), "no protobuf message");

  v1::ComputeAttentionResponse bad = good_;
  bad.mutable_output()->pop_back();
  refused(bad.SerializeAsString(), "output: expected 576 bytes, got 575");
  bad = good_;
  bad.mutable_output()->push_back('x');
  refused(bad.SerializeAsString(), "output: expected 576 bytes, got 577");
  bad = good_;
  bad.clear_output();
  refused(bad.SerializeAsString(), "no output");
  bad = good_;
  bad.set_dtype(v1::DTYPE_BF16);
  refused(bad.SerializeAsString(), "dtype: expected DTYPE_FP32, got DTYPE_BF16");
  bad = good_;
  bad.set_log_sum_exp("1234");
  refused(bad.SerializeAsString(), "log_sum_exp: expected 0 bytes, got 4");
  t_.request.return_log_sum_exp = true;
  refused(bad.SerializeAsString(), "log_sum_exp: expected 96 bytes, got 4");
  for (const std::size_t size : {95u, 97u, 100u}) {
    bad.set_log_sum_exp(std::string(size, 'x'));
    refused(bad.SerializeAsString(), "log_sum_exp: expected 96 bytes, got ");
  }
  refused(good_.SerializeAsString(), "no log_sum_exp");
}

// Into memory of the caller's, of the right size alone: what comes is never written beyond it.
TEST_F(ReplyTest, ADestinationGetsItsBytesAndNoMore) {
  t_.request.return_log_sum_exp = true;
  shape_ = *CheckRequest(t_.request);
  good_.set_log_sum_exp(std::string(static_cast<std::size_t>(shape_.log_sum_exp_bytes), 'l'));
  const auto size = static_cast<std::size_t>(shape_.output_bytes), rows = good_.log_sum_exp().size();
  for (const std::size_t more : {std::size_t{0}, std::size_t{1}, std::size_t{4}}) {
    std::string output(size + 8, '?'), log_sum_exp(rows + 8, '?');
    t_.request.output = {output.data(), size};
    t_.request.log_sum_exp = {log_sum_exp.data(), rows};
    v1::ComputeAttentionResponse reply = good_;
    reply.mutable_output()->append(more, 'x');
    EXPECT_EQ(Decode(reply.SerializeAsString(), 100).ok(), more == 0);
    if (more == 0) {
      EXPECT_EQ(output.substr(0, size), good_.output());
      EXPECT_EQ(log_sum_exp.substr(0, rows), good_.log_sum_exp());
    }
    reply = good_;
    reply.mutable_log_sum_exp()->append(more, 'x');
    EXPECT_EQ(Decode(reply.SerializeAsString(), 100).ok(), more == 0);
    EXPECT_EQ(output.substr(size), "????????");
    EXPECT_EQ(log_sum_exp.substr(rows), "????????");
  }
}

// google.rpc.Status {code = 1, message = 2, details = 3} by hand, as servers send it.
std::string RpcStatus(const google::protobuf::Message& detail) {
  google::protobuf::Any any;
  any.PackFrom(detail);
  const std::string value = any.SerializeAsString();
  return std::string("\x08\x03\x12\x02no\x1a", 7) + static_cast<char>(value.size()) + value;
}

TEST(Errors, KeepCodeMessageAndDetail) {
  FakeAttention service;
  FakeServer server({&service});
  ClientOptions once;
  once.retry.enabled = false;
  Client client = *Client::Create(server.target(), once);
  v1::ErrorDetail detail;
  detail.set_field("heads");
  detail.set_expected("8");
  detail.set_got("4");
  struct {
    grpc::Status sent;
    absl::StatusCode code;
    bool has_detail;
  } const cases[] = {
      {{grpc::StatusCode::INVALID_ARGUMENT, "heads: expected 8, got 4", RpcStatus(detail)},
       absl::StatusCode::kInvalidArgument,
       true},
      {{grpc::StatusCode::NOT_FOUND, "no model \"x\""}, absl::StatusCode::kNotFound, false},
      {{grpc::StatusCode::RESOURCE_EXHAUSTED, "too large", RpcStatus(google::protobuf::Any())},
       absl::StatusCode::kResourceExhausted,
       false},
      {{grpc::StatusCode::ALREADY_EXISTS, "cut short", RpcStatus(detail).substr(0, 20)},
       absl::StatusCode::kAlreadyExists,
       false},
      {{grpc::StatusCode::UNAVAILABLE, "stopping", "\xff\xff\xff"}, absl::StatusCode::kUnavailable, false},
  };
  TestRequest t;
  for (const auto& c : cases) {
    service.handler = [&](grpc::ServerContext*, const v1::ComputeAttentionRequest&, v1::ComputeAttentionResponse&) {
      return c.sent;
    };
    for (const absl::Status& status :
         {client.Compute(t.request).status(), Get(client.ComputeFuture(t.request)).status()}) {
      EXPECT_EQ(status.code(), c.code);
      EXPECT_EQ(status.message(), c.sent.error_message());
      EXPECT_EQ(AnsweredByServer(status), !c.sent.error_details().empty());
      const std::optional<ErrorDetail> found = GetErrorDetail(status);
      ASSERT_EQ(found.has_value(), c.has_detail) << status;
      if (found.has_value()) {
        EXPECT_EQ(found->field, "heads");
        EXPECT_EQ(found->expected, "8");
        EXPECT_EQ(found->got, "4");
      }
    }
  }
}

}  // namespace
}  // namespace attnd::client
