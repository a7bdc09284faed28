// Each row of the table of limits (proto/attnd/limits.inc): what reaches the limit is accepted, and what exceeds it by
// one is refused with RESOURCE_EXHAUSTED or the row's own code. A row without a case fails.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "limit_cases.h"
#include "local_caller.h"
#include "raw_region.h"
#include "session_support.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;
using testing::HasSubstr;

// The doors by which a call comes, each with the status of its answer.
grpc::Status Unary(TestServer& server, const v1::ComputeAttentionRequest& request) {
  v1::ComputeAttentionResponse response;
  return server.Compute(request, &response);
}
grpc::Status Streamed(TestServer& server, const v1::StreamAttentionRequest& piece) {
  grpc::ClientContext context;
  const auto stream = server.attention().StreamAttention(&context);
  v1::StreamAttentionResponse answer;
  stream->Write(piece);
  stream->WritesDone();
  const bool answered = stream->Read(&answer);
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return status;
  return answered ? grpc::Status(static_cast<StatusCode>(answer.code()), answer.message())
                  : grpc::Status(StatusCode::DATA_LOSS, "no answer");
}
grpc::Status Local(const SessionServer& server, const v1::ComputeAttentionRequest& request) {
  const test::LocalCaller caller(server.local_path());
  EXPECT_EQ(caller.Greet().code(), 0);
  const v1::LocalAnswer answer = caller.Call(request);
  return grpc::Status(static_cast<StatusCode>(answer.code()), answer.message());
}
grpc::Status Step(const SessionServer& server, Door door, const v1::SessionRequest& step) {
  Stream stream(server, door, OpenOf(1, 0, v1::DTYPE_FP32));
  EXPECT_TRUE(stream.opened());
  EXPECT_TRUE(stream.Write(step, /*sent=*/true));
  if (stream.Read() && stream.reply().has_result()) {
    const v1::SessionStepResult& result = stream.reply().result();
    return grpc::Status(static_cast<StatusCode>(result.code()), result.message());
  }
  const SessionEnd end = stream.Finish();
  return grpc::Status(end.code, end.message);
}

// A message that reaches the limit, and the same with a byte more of q: accepted, it would be INVALID_ARGUMENT.
void RequestBytes() {
  const auto limit = &server::Limits::max_request_bytes;
  v1::ComputeAttentionRequest request = ValidRequest();
  v1::StreamAttentionRequest piece = PieceOf(1, request);
  v1::SessionRequest step = TokenStep(1, 1);
  const auto size = [](const google::protobuf::Message& message) {
    return static_cast<std::int64_t>(message.ByteSizeLong());
  };
  SessionServer unary(With(limit, size(request))), stream(With(limit, size(piece))), session(With(limit, size(step)));
  EXPECT_TRUE(Unary(unary, request).ok());
  EXPECT_TRUE(Local(unary, request).ok());
  EXPECT_TRUE(Streamed(stream, piece).ok());
  EXPECT_TRUE(Step(session, Door::kGrpc, step).ok());
  const auto text = [&](SessionServer& server) { return std::to_string(InfoOf(server).limits().max_request_bytes()); };
  request.mutable_q()->push_back('x');
  piece.mutable_q()->push_back('x');
  step.mutable_q()->push_back('x');
  ExpectExhausted(Unary(unary, request), text(unary));
  ExpectExhausted(Local(unary, request), text(unary));
  ExpectExhausted(Streamed(stream, piece), text(stream));
  ExpectExhausted(Step(session, Door::kGrpc, step), text(session));
}

void ResultBytes() {
  for (const bool log_sum_exp : {false, true}) {
    v1::ComputeAttentionRequest request = ValidRequest();
    request.set_return_log_sum_exp(log_sum_exp);
    v1::SessionRequest step = TokenStep(1, 1);
    step.mutable_step()->set_return_log_sum_exp(log_sum_exp);
    const std::int64_t bytes = 2 * kHeads * 5 * 4 * (4 + (log_sum_exp ? 1 : 0));
    const std::int64_t step_bytes = kHeads * 4 * (16 + (log_sum_exp ? 1 : 0));
    for (const int fewer : {0, 1}) {
      SCOPED_TRACE(testing::Message() << "log_sum_exp " << log_sum_exp << ", bytes fewer: " << fewer);
      SessionServer calls(With(&server::Limits::max_result_bytes, bytes - fewer));
      SessionServer steps(With(&server::Limits::max_result_bytes, step_bytes - fewer));
      for (const grpc::Status& status :
           {Unary(calls, request), Streamed(calls, PieceOf(1, request)), Local(calls, request),
            Step(steps, Door::kGrpc, step), Step(steps, Door::kLocal, step)}) {
        if (fewer == 0) {
          EXPECT_TRUE(status.ok()) << status.error_message();
        } else {
          ExpectExhausted(status, "--max_result_bytes");
        }
      }
    }
  }
}

// As many bytes of other fields as the limit allows: unknown ones, which protobuf keeps.
template <typename Request>
Request Padded(Request request, std::int64_t size) {
  Request small = request;
  for (const char* const tensor : {"q", "k", "v"}) {
    small.GetReflection()->ClearField(&small, Request::descriptor()->FindFieldByName(tensor));
  }
  constexpr int kUnknown = 1000;
  const std::int64_t left = size - static_cast<std::int64_t>(small.ByteSizeLong());
  const std::int64_t prefix = 2 + 3;  // a tag of two bytes and a length of three
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(
      kUnknown, std::string(static_cast<std::size_t>(left - prefix), 'x'));
  return request;
}

void HeaderBytes() {
  SessionServer server;
  constexpr std::int64_t kLimit = server::Limits().max_header_bytes;
  const v1::ComputeAttentionRequest request = ValidRequest();
  EXPECT_TRUE(Unary(server, Padded(request, kLimit)).ok());
  EXPECT_TRUE(Streamed(server, Padded(PieceOf(1, request), kLimit)).ok());
  EXPECT_TRUE(Step(server, Door::kGrpc, Padded(TokenStep(1, 1), kLimit)).ok());
  ExpectExhausted(Unary(server, Padded(request, kLimit + 1)), "max_header_bytes");
  ExpectExhausted(Streamed(server, Padded(PieceOf(1, request), kLimit + 1)), "max_header_bytes");
  ExpectExhausted(Step(server, Door::kGrpc, Padded(TokenStep(1, 1), kLimit + 1)), "max_header_bytes");
}

// attention_limits_test.cc has each field, by every door.
void Dimensions() {
  TestServer server(With(&server::Limits::max_dim, 7));
  EXPECT_TRUE(Unary(server, ValidRequest({.key_length = 7})).ok());
  EXPECT_EQ(Unary(server, ValidRequest({.key_length = 8})).error_message(), "key_length: expected 1 to 7, got 8");
}
void HeadDimensions() {
  TestServer server(With(&server::Limits::max_head_dim, 4));
  EXPECT_TRUE(Unary(server, ValidRequest({.head_dim = 4})).ok());
  EXPECT_EQ(Unary(server, ValidRequest({.head_dim = 5})).error_message(), "head_dim: expected 1 to 4, got 5");
}

grpc::Status Upload(TestServer& server, const std::string& model, int values, const std::string& table = "decoder") {
  v1::UploadTableRequest request;
  request.set_model(model);
  request.mutable_table()->set_name(table);
  request.mutable_table()->set_heads(1);
  request.mutable_table()->mutable_per_offset()->mutable_values()->Resize(values, 0.5F);
  grpc::ClientContext context;
  v1::UploadTableResponse response;
  return server.models().UploadTable(&context, request, &response);
}

void Models() {
  const std::int64_t loaded = 3;  // the embedded ones and kModel
  TestServer server(With(&server::Limits::max_models, loaded + 1));
  EXPECT_TRUE(Upload(server, "one", 10).ok());
  ExpectExhausted(Upload(server, "two", 10), "4 models (max_models)");
  EXPECT_TRUE(Upload(server, "one", 10, "decoder.1").ok()) << "a table more is no model more";
}

void TableValues() {
  TestServer server(With(&server::Limits::max_table_values, 1000));
  EXPECT_TRUE(Upload(server, "one", 1000).ok());
  ExpectExhausted(Upload(server, "two", 1001), "1000 values");
}

void BiasCells() {
  TestServer server(With(&server::Limits::max_bias_cells, 1000));
  const auto window = [&](std::int64_t queries, std::int64_t keys) {
    v1::GetBiasRequest request;
    request.set_model(kModel);
    request.set_query_count(queries);
    request.set_key_count(keys);
    grpc::ClientContext context;
    v1::GetBiasResponse response;
    return server.models().GetBias(&context, request, &response);
  };
  EXPECT_TRUE(window(500, 1).ok());
  EXPECT_TRUE(window(1, 500).ok());
  ExpectExhausted(window(501, 1), "1000 cells (--max_bias_cells)");
  ExpectExhausted(window(1, 501), "1000 cells (--max_bias_cells)");
}

void ModelFileBytes() {
  const test::TempFolder folder;
  server::Options options = With(&server::Limits::max_model_file_bytes, 1000);
  const auto load = [&](TestServer& server, const std::string& name, std::size_t bytes) {
    std::string text = R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})";
    text.resize(bytes, ' ');
    std::ofstream(std::filesystem::path(folder.path()) / (name + ".json")) << text;
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_path(name + ".json");
    v1::LoadModelResponse response;
    return server.models().LoadModel(&context, request, &response);
  };
  options.model_root = folder.path();
  TestServer server(options);
  EXPECT_TRUE(load(server, "fits", 1000).ok());
  ExpectExhausted(load(server, "larger", 1001), "max_model_file_bytes, 1000");
}

void PageSize() {
  TestServer server;
  const auto list = [&](std::int64_t size) {
    grpc::ClientContext context;
    v1::ListModelsRequest request;
    request.set_page_size(size);
    v1::ListModelsResponse response;
    return server.models().ListModels(&context, request, &response);
  };
  EXPECT_TRUE(list(1000).ok());
  EXPECT_EQ(list(1001).error_message(), "page_size: expected 0 to 1000, got 1001");
}

// What a call needs is what the refusals of smaller limits say.
void InflightBytes() {
  const v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 1024, .key_length = 1024, .head_dim = 64});
  for (const bool shares : {false, true}) {
    const auto call = [&](std::int64_t limit) {
      server::Options options = With(&server::Limits::max_inflight_bytes, limit);
      options.limits.max_request_bytes = options.limits.max_result_bytes = 2 << 20;
      options.peer_shares = shares;
      TestServer server(options);
      return Unary(server, request);
    };
    std::int64_t needed = 1 << 20;
    grpc::Status status = call(needed);
    for (int i = 0; i < 5 && !status.ok(); ++i) {
      ExpectExhausted(status, "--max_inflight_bytes");
      const std::string got = DetailOf(status).got();
      std::int64_t bytes = 0;
      ASSERT_TRUE(absl::SimpleAtoi(got.substr(0, got.find(' ')), &bytes)) << got;
      needed = shares ? 2 * bytes : bytes;
      status = call(needed);
    }
    EXPECT_TRUE(status.ok()) << status.error_message();
    ExpectExhausted(call(needed - 1), "--max_inflight_bytes");
  }
}

void SharedBytes() {
  constexpr std::int64_t kLimit = 1 << 18;
  server::Options options = With(&server::Limits::max_shared_bytes, kLimit);
  options.peer_shares = false;
  const SessionServer server(options);
  const auto registered = [](const test::RawCaller& caller, std::size_t size) {
    const shm::UniqueFd fd = test::SealedMemfd(size);
    const shm::Request request = test::RegisterRequest(size);
    EXPECT_TRUE(caller.Send(&request, sizeof(request), {fd.get()}));
    const std::optional<shm::Reply> reply = caller.Receive();
    EXPECT_TRUE(reply.has_value());
    return reply.has_value() ? grpc::Status(static_cast<StatusCode>(reply->code), reply->message) : grpc::Status();
  };
  // A connection may have half, and all connections may have all.
  const test::RawCaller one(server.local_path()), two(server.local_path()), three(server.local_path());
  EXPECT_TRUE(registered(one, kLimit / 4).ok());
  EXPECT_TRUE(registered(one, kLimit / 4).ok());
  ExpectExhausted(registered(one, 4096), "131072 bytes of one connection");
  EXPECT_TRUE(registered(two, kLimit / 2 - 4096).ok());
  ExpectExhausted(registered(three, 8192), "--max_shared_bytes");
  EXPECT_TRUE(registered(three, 4096).ok());
  ExpectExhausted(registered(three, 4096), "--max_shared_bytes");
}

// The bytes of a table with 5000 values are those that it adds to an empty server's.
void ModelBytes() {
  TestServer probe;
  const std::int64_t before = InfoOf(probe).model_bytes();
  ASSERT_TRUE(Upload(probe, "one", 5000).ok());
  const std::int64_t bytes = InfoOf(probe).model_bytes() - before;
  for (const int fewer : {0, 1}) {
    TestServer model(With(&server::Limits::max_model_bytes, bytes - fewer));
    TestServer total(With(&server::Limits::max_total_model_bytes, before + bytes - fewer));
    if (fewer == 0) {
      EXPECT_TRUE(Upload(model, "one", 5000).ok());
      EXPECT_TRUE(Upload(total, "one", 5000).ok());
      ExpectExhausted(Upload(model, "one", 1, "decoder.1"), "max_model_bytes");
    } else {
      ExpectExhausted(Upload(model, "one", 5000), "max_model_bytes");
      ExpectExhausted(Upload(total, "one", 5000), "max_total_model_bytes");
    }
  }
}

const std::map<std::string, std::function<void()>>& Cases() {
  static const auto* const cases = new std::map<std::string, std::function<void()>>{
      {"max_request_bytes", RequestBytes},
      {"max_result_bytes", ResultBytes},
      {"max_dim", Dimensions},
      {"max_head_dim", HeadDimensions},
      {"max_models", Models},
      {"max_table_values", TableValues},
      {"max_bias_cells", BiasCells},
      {"max_model_file_bytes", ModelFileBytes},
      {"max_page_size", PageSize},
      {"max_inflight_bytes", InflightBytes},
      {"max_header_bytes", HeaderBytes},
      {"max_shared_bytes", SharedBytes},
      {"max_model_bytes", ModelBytes},
      {"max_total_model_bytes", ModelBytes},
      {"max_connections", Connections},
      {"max_peer_connections", PeerConnections},
      {"max_connection_streams", ConnectionStreams},
      {"max_reads", Reads},
  };
  return *cases;
}

class LimitRowTest : public testing::TestWithParam<std::string> {};

TEST_P(LimitRowTest, IsReachedAndNotExceeded) {
  const auto found = Cases().find(GetParam());
  ASSERT_NE(found, Cases().end()) << "a limit without a case";
  found->second();
}

std::vector<std::string> Rows() {
  std::vector<std::string> names;
  for (const server::LimitRow& row : server::LimitRows()) names.emplace_back(row.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Limits, LimitRowTest, testing::ValuesIn(Rows()), [](const auto& row) { return row.param; });

// Each limit that is set is the one that the server says it has.
TEST(LimitRowsTest, AreSaidByTheServer) {
  server::Options options = TestOptions();
  std::int64_t value = 1000;
  for (const server::LimitRow& row : server::LimitRows()) {
    if (row.has_flag && row.value != &server::Limits::max_inflight_bytes) options.limits.*row.value = ++value;
  }
  options.limits.max_shared_bytes = 0;
  options.limits.max_total_model_bytes = options.limits.max_model_bytes = 1 << 20;
  options.limits.max_table_values = 5000;
  TestServer server(options);
  const v1::Limits said = InfoOf(server).limits();
  for (const server::LimitRow& row : server::LimitRows()) {
    if (!row.has_flag || options.limits.*row.value == 0) continue;
    const auto* const field = v1::Limits::descriptor()->FindFieldByName(row.name);
    EXPECT_EQ(said.GetReflection()->GetInt64(said, field), options.limits.*row.value) << row.name;
  }
}

// Beside the table: sessions, of all callers and of one.
TEST(SessionsTest, AtATime) {
  for (const bool of_peer : {false, true}) {
    server::Options options = TestOptions();
    (of_peer ? options.max_peer_sessions : options.max_sessions) = 2;
    const SessionServer server(options);
    for (const Door door : {Door::kGrpc, Door::kLocal}) {
      const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
      auto first = std::make_unique<Stream>(server, door, open);
      Stream second(server, door, open), third(server, door, open);
      EXPECT_TRUE(first->opened());
      EXPECT_TRUE(second.opened());
      ASSERT_FALSE(third.opened());
      const SessionEnd end = third.Finish();
      EXPECT_EQ(end.code, StatusCode::RESOURCE_EXHAUSTED) << end.message;
      EXPECT_THAT(end.message, HasSubstr(of_peer ? "max_peer_sessions" : "max_sessions"));
      first->HalfClose();
      first.reset();
      EXPECT_TRUE(Becomes([&] { return Stream(server, door, open).opened(); }));
      second.HalfClose();
    }
  }
}

}  // namespace
}  // namespace attnd::e2e
