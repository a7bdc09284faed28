// Sessions through the C++ client, over gRPC and over the local socket, against whole calls: the same bits.
#include <signal.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using test::Becomes;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int64_t kDim = 16;

SessionLayer SelfLayer() {
  SessionLayer layer;
  layer.heads = kHeads;
  layer.head_dim = kDim;
  return layer;
}

SessionRequest Opening(std::int64_t rows) {
  SessionRequest request;
  request.model = kModel;
  request.rows = rows;
  request.layers = {SelfLayer()};
  request.max_tokens = 100;
  return request;
}

// A tensor [count, heads, rows, kDim] and its memory.
struct Numbers {
  Numbers(std::int64_t count, std::int64_t rows, unsigned seed)
      : bytes(RandomFloats(count * kHeads * rows * kDim, seed)),
        view{bytes.data(), DType::kFp32, {count, kHeads, rows, kDim}} {}
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  std::string bytes;
  TensorView view;
};

StepRequest StepOf(const Numbers& q, const Numbers& k, const Numbers& v) {
  StepRequest step;
  step.q = q.view;
  step.k = k.view;
  step.v = v.view;
  return step;
}

std::string BytesOf(const Tensor& tensor) {
  std::string bytes(tensor.size_bytes(), '\0');
  tensor.CopyTo(bytes.data());
  return bytes;
}

// Each by gRPC and over the local socket.
class SessionClientTest : public testing::TestWithParam<Transport> {
 protected:
  SessionClientTest() { Start(); }

  void Start(server::Options options = TestOptions()) {
    options.listen = {"unix:" + folder_.path() + "/s"};
    server_.reset();
    server_ = std::make_unique<TestServer>(options);
    client_ = std::make_unique<Client>(NewClient());
  }
  Client NewClient() const {
    ClientOptions options;
    options.local_calls = GetParam() == Transport::kLocal;
    options.retry.enabled = false;
    return *Client::Create(server_->address(), options);
  }
  std::unique_ptr<Session> Open(const SessionRequest& request) {
    absl::StatusOr<std::unique_ptr<Session>> session = client_->OpenSession(request);
    EXPECT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->facts().transport, GetParam());
    return *std::move(session);
  }
  std::int64_t held_bytes() const { return server_->server().inflight_bytes(); }
  bool SharesNothing() const {
    return Becomes([&] { return server_->server().shared_memory()->mapped_bytes() == 0; });
  }

  const test::TempFolder folder_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Client> client_;
};

INSTANTIATE_TEST_SUITE_P(Doors, SessionClientTest, testing::Values(Transport::kGrpc, Transport::kLocal),
                         [](const testing::TestParamInfo<Transport>& door) {
                           return door.param == Transport::kLocal ? "Local" : "Grpc";
                         });

TEST_P(SessionClientTest, GivesTheBitsOfWholeCalls) {
  const std::unique_ptr<Session> session = Open(Opening(1));
  EXPECT_GT(session->facts().reserved_bytes, 0);
  EXPECT_EQ(session->facts().page_tokens, 64);
  EXPECT_FALSE(session->facts().content_hash.empty());
  std::string keys[kHeads], values[kHeads];
  for (std::int64_t i = 0; i < 5; ++i) {
    const std::int64_t tokens = i == 0 ? 7 : 1;
    const auto seed = static_cast<unsigned>(10 * i);
    const Numbers q(1, tokens, seed), k(1, tokens, seed + 1), v(1, tokens, seed + 2);
    StepRequest step = StepOf(q, k, v);
    step.return_log_sum_exp = true;
    step.expected_lengths = {i == 0 ? 0 : 6 + i};
    const absl::StatusOr<StepReply> reply = session->Step(step);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_THAT(reply->lengths, ElementsAre(7 + i));
    EXPECT_GT(reply->used_bytes, 0);
    std::string all_keys, all_values;
    for (std::int64_t h = 0; h < kHeads; ++h) {
      const auto bytes = static_cast<std::size_t>(tokens * kDim * 4);
      keys[h] += k.bytes.substr(static_cast<std::size_t>(h) * bytes, bytes);
      values[h] += v.bytes.substr(static_cast<std::size_t>(h) * bytes, bytes);
      all_keys += keys[h];
      all_values += values[h];
    }
    ComputeRequest whole;
    whole.model = kModel;
    whole.q = q.view;
    whole.k = {all_keys.data(), DType::kFp32, {1, kHeads, 7 + i, kDim}};
    whole.v = {all_values.data(), DType::kFp32, {1, kHeads, 7 + i, kDim}};
    whole.return_log_sum_exp = true;
    const absl::StatusOr<ComputeReply> expected = client_->Compute(whole);
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_EQ(reply->output.sizes(), expected->output.sizes());
    EXPECT_TRUE(BytesOf(reply->output) == BytesOf(expected->output)) << "step " << i;
    EXPECT_EQ(reply->log_sum_exp, expected->log_sum_exp);
  }
  EXPECT_TRUE(session->Close().ok());
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(session->Step({}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(SessionClientTest, BeamsAndSources) {
  SessionRequest opening = Opening(4);
  opening.sources = 2;
  opening.max_source_tokens = 50;
  opening.dtype = DType::kBf16;
  opening.layers.push_back(SelfLayer());
  opening.layers[1].kind = SessionLayer::Kind::kCross;
  const std::unique_ptr<Session> session = Open(opening);
  const Numbers source(2, 50, 1), q(4, 1, 2), k(4, 1, 3), v(4, 1, 4);
  StepRequest fill;
  fill.layer = 1;
  fill.k = fill.v = source.view;
  fill.key_lengths = {50, 30};
  ASSERT_THAT(session->Step(fill)->lengths, ElementsAre(50, 30));
  ASSERT_TRUE(session->Step(StepOf(q, k, v)).ok());
  StepRequest across;
  across.layer = 1;
  across.q = q.view;
  across.reorder = {1, 0, 3, 3};
  across.output_dtype = DType::kFp16;
  const absl::StatusOr<StepReply> reply = session->Step(across);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->output.dtype(), DType::kFp16);
  EXPECT_EQ(reply->output.size_bytes(), 4u * kHeads * kDim * 2);
}

TEST_P(SessionClientTest, AnErrorChangesNothing) {
  const std::unique_ptr<Session> session = Open(Opening(2));
  const Numbers q(2, 1, 1), k(2, 1, 2), v(2, 1, 3), wrong(1, 1, 4);
  EXPECT_TRUE(session->Step(StepOf(q, k, v)).ok());
  StepRequest step = StepOf(q, wrong, v);
  const absl::Status refused = session->Step(step).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(refused)->field, "k");
  step = StepOf(q, k, v);
  step.layer = 1;
  EXPECT_EQ(GetErrorDetail(session->Step(step).status())->field, "layer");
  step.layer = 0;
  step.v.dtype = DType::kFp16;
  EXPECT_EQ(GetErrorDetail(session->Step(step).status())->field, "v.dtype");
  step = StepOf(q, k, v);
  step.timeout = absl::ZeroDuration();
  EXPECT_EQ(session->Step(step).status().code(), absl::StatusCode::kDeadlineExceeded);
  step.timeout = absl::Seconds(60);
  EXPECT_THAT(session->Step(step)->lengths, ElementsAre(2, 2));
  SessionRequest opening = Opening(0);
  EXPECT_EQ(GetErrorDetail(client_->OpenSession(opening).status())->field, "open.rows");
}

TEST_P(SessionClientTest, OperatorsSeeAndEvictThem) {
  const std::unique_ptr<Session> session = Open(Opening(3));
  const auto list = client_->ListSessions();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->front().rows, 3);
  EXPECT_EQ(list->front().model, kModel);
  EXPECT_EQ(list->front().reserved_bytes, session->facts().reserved_bytes);
  EXPECT_TRUE(client_->EvictSession(list->front().id).ok());
  for (int i = 0; i < 2; ++i) {
    const absl::Status evicted = session->Step({}).status();
    EXPECT_EQ(evicted.code(), absl::StatusCode::kAborted) << evicted;
    EXPECT_THAT(evicted.message(), HasSubstr("evicted"));
  }
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(client_->EvictSession(list->front().id).code(), absl::StatusCode::kNotFound);
}

TEST_P(SessionClientTest, IsToldOfAStopAndOfALoss) {
  server::Options options = TestOptions();
  options.drain = absl::Seconds(1);
  Start(options);
  const std::unique_ptr<Session> session = Open(Opening(1));
  const Numbers q(1, 1, 1), k(1, 1, 2), v(1, 1, 3);
  EXPECT_FALSE(session->going_away().has_value());
  std::thread stop([&] { server_->server().Stop(); });
  EXPECT_TRUE(Becomes([&] { return session->going_away().has_value() || !session->Step(StepOf(q, k, v)).ok(); }));
  EXPECT_EQ(session->going_away(), absl::Seconds(1));
  stop.join();
  EXPECT_FALSE(session->Step(StepOf(q, k, v)).ok());
}

TEST_P(SessionClientTest, ThreadsTakeTurns) {
  const std::unique_ptr<Session> session = Open(Opening(1));
  const Numbers q(1, 1, 1), k(1, 1, 2), v(1, 1, 3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(session->Step(StepOf(q, k, v)).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(session->Step({})->lengths, ElementsAre(80));
}

// Prompts and many rows: what fits into no datagram, each way or one way alone, and then single tokens again.
TEST_P(SessionClientTest, TensorsOfAnySizeGiveTheBitsOfWholeCalls) {
  constexpr std::int64_t kPrompt = 700;
  SessionRequest opening = Opening(1);
  opening.max_tokens = 2000;
  const std::unique_ptr<Session> session = Open(opening);
  std::vector<std::string> keys(kHeads), values(kHeads);
  std::int64_t tokens = 0;
  for (const auto& [appended, queries] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {kPrompt, kPrompt}, {1, 1}, {kPrompt, 1}, {1, 600}, {1, 1}, {200, 190}, {1, 1}}) {
    tokens += appended;
    const auto seed = static_cast<unsigned>(tokens);
    const Numbers q(1, queries, seed), k(1, appended, seed + 1), v(1, appended, seed + 2);
    StepRequest step = StepOf(q, k, v);
    step.return_log_sum_exp = true;
    const absl::StatusOr<StepReply> reply = session->Step(step);
    ASSERT_TRUE(reply.ok()) << reply.status();
    std::string all_keys, all_values;
    for (std::size_t h = 0; h < kHeads; ++h) {
      const auto bytes = static_cast<std::size_t>(appended * kDim * 4);
      keys[h] += k.bytes.substr(h * bytes, bytes);
      values[h] += v.bytes.substr(h * bytes, bytes);
      all_keys += keys[h];
      all_values += values[h];
    }
    ComputeRequest whole;
    whole.model = kModel;
    whole.q = q.view;
    whole.k = {all_keys.data(), DType::kFp32, {1, kHeads, tokens, kDim}};
    whole.v = {all_values.data(), DType::kFp32, {1, kHeads, tokens, kDim}};
    whole.return_log_sum_exp = true;
    const absl::StatusOr<ComputeReply> expected = client_->Compute(whole);
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_TRUE(BytesOf(reply->output) == BytesOf(expected->output)) << appended << " " << queries;
    EXPECT_EQ(reply->log_sum_exp, expected->log_sum_exp);
  }
}

TEST_P(SessionClientTest, TheMostSequencesAndTheMostAreDecided) {
  SessionRequest opening = Opening(1024);
  opening.max_tokens = 1;
  const std::unique_ptr<Session> session = Open(opening);
  const Numbers q(1024, 1, 1), k(1024, 1, 2), v(1024, 1, 3);
  StepRequest step = StepOf(q, k, v);
  step.return_log_sum_exp = true;
  step.truncate.assign(1024, 1);
  step.key_starts = step.reorder = std::vector<std::int64_t>(1024, 0);
  step.expected_lengths.assign(1024, 0);
  step.query_lengths = step.key_lengths = std::vector<std::int64_t>(1024, 1);
  const absl::StatusOr<StepReply> reply = session->Step(step);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->lengths, std::vector<std::int64_t>(1024, 1));
  opening.rows = 1025;
  EXPECT_EQ((*client_->OpenSession(opening))->facts().transport, Transport::kGrpc);
}

// Around the most that an answer has room for.
TEST_P(SessionClientTest, ResultsOfAnySizeComeBack) {
  SessionRequest opening = Opening(1);
  opening.max_tokens = 600;
  const std::unique_ptr<Session> session = Open(opening);
  const Numbers k(1, 600, 2), v(1, 600, 3);
  StepRequest append;
  append.k = k.view;
  append.v = v.view;
  ASSERT_TRUE(session->Step(append).ok());
  for (const bool log_sum_exp : {false, true}) {
    const std::int64_t most = log_sum_exp ? 482 : 512;  // a whole datagram
    for (std::int64_t queries = most - 12; queries <= most + 2; ++queries) {
      const Numbers q(1, queries, 1);
      StepRequest step;
      step.q = q.view;
      step.return_log_sum_exp = log_sum_exp;
      const absl::StatusOr<StepReply> reply = session->Step(step);
      ASSERT_TRUE(reply.ok()) << queries << ": " << reply.status();
      EXPECT_EQ(reply->output.size_bytes(), q.bytes.size());
      EXPECT_EQ(reply->log_sum_exp.size(), log_sum_exp ? static_cast<std::size_t>(kHeads * queries) : 0U);
    }
  }
}

TEST_P(SessionClientTest, AnEndFreesTheServersMemory) {
  const Numbers q(1, 700, 1), k(1, 700, 2), v(1, 700, 3);
  SessionRequest opening = Opening(1);
  opening.max_tokens = 1000;
  for (const bool closes : {true, false}) {
    ASSERT_EQ(held_bytes(), 0);
    std::unique_ptr<Session> session = Open(opening);
    ASSERT_TRUE(session->Step(StepOf(q, k, v)).ok());
    EXPECT_GE(held_bytes(), session->facts().reserved_bytes);
    if (closes) {
      // All that it kept is free by the time that it is told.
      EXPECT_TRUE(session->Close().ok());
      EXPECT_EQ(held_bytes(), 0);
    } else {
      session.reset();
      EXPECT_TRUE(Becomes([&] { return held_bytes() == 0; }));
    }
    EXPECT_TRUE(SharesNothing());
  }
}

TEST_P(SessionClientTest, ARefusedOpeningHasTheDetailOfGrpc) {
  server::Options options = TestOptions();
  options.max_sessions = 1;
  Start(options);
  const std::unique_ptr<Session> session = Open(Opening(1));
  SessionRequest unknown = Opening(1), rows = Opening(-1), large = Opening(1000);
  unknown.model = "nobody's";
  large.max_tokens = std::int64_t{1} << 40;
  ClientOptions by_grpc;
  by_grpc.local_calls = false;
  Client grpc = *Client::Create(server_->address(), by_grpc);
  for (const SessionRequest& request : {unknown, rows, large, Opening(1)}) {
    const absl::Status refused = client_->OpenSession(request).status();
    EXPECT_FALSE(refused.ok());
    EXPECT_EQ(refused, grpc.OpenSession(request).status());  // payloads too
  }
}

TEST_P(SessionClientTest, AStepBeyondTheServersMessagesIsRefusedAndTheSessionGoesOn) {
  server::Options options = TestOptions();
  options.limits.max_request_bytes = 100'000;
  Start(options);
  SessionRequest opening = Opening(1);
  opening.max_tokens = 2000;
  const std::unique_ptr<Session> session = Open(opening);
  const Numbers prompt(1, 1000, 1), token(1, 1, 2);
  const absl::Status status = session->Step(StepOf(token, prompt, prompt)).status();
  if (GetParam() == Transport::kGrpc) {
    EXPECT_EQ(session->facts().max_message_bytes, 100'000);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(GetErrorDetail(status)->field, "k");
  } else {
    EXPECT_EQ(session->facts().max_message_bytes, 65'520);
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_TRUE(session->Step(StepOf(token, token, token)).ok());
}

// The server reads what the client does not refuse, byte for byte up to the largest message: a mask that is too long
// for the source, so each is refused by one of both.
TEST_P(SessionClientTest, WhatTheClientTakesTheServerReads) {
  server::Options options = TestOptions();
  options.limits.max_request_bytes = 100'000;
  Start(options);
  SessionRequest opening = Opening(1);
  opening.sources = 1;
  opening.max_source_tokens = 100;
  opening.layers.push_back(SelfLayer());
  opening.layers[1].kind = SessionLayer::Kind::kCross;
  const std::unique_ptr<Session> session = Open(opening);
  StepRequest step;
  step.layer = 1;
  int read = 0, refused = 0;
  const std::size_t most = GetParam() == Transport::kGrpc ? 100'000 : 65'536;
  for (std::size_t bytes = most - 300; bytes <= most; ++bytes) {
    step.key_bits.assign(bytes, 0xff);
    step.key_bits_length = static_cast<std::int64_t>(8 * bytes);
    const absl::Status status = session->Step(step).status();
    ASSERT_TRUE(GetErrorDetail(status).has_value()) << status;
    if (AnsweredByServer(status)) {
      ++read;
      EXPECT_EQ(refused, 0);
      EXPECT_EQ(GetErrorDetail(status)->field, "key_bits_length");
    } else {
      ++refused;
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_EQ(GetErrorDetail(status)->field, "key_bits");
    }
  }
  EXPECT_GT(read, 0);
  // By gRPC to the last byte: these are the other fields.
  EXPECT_LT(refused, GetParam() == Transport::kGrpc ? 30 : 300);
  const Numbers token(1, 1, 2);
  EXPECT_TRUE(session->Step(StepOf(token, token, token)).ok());
}

// The binary that ships, ended in the middle of a session.
TEST(SessionClient, AServerThatDiesIsUnavailable) {
  for (const bool local : {false, true}) {
    const test::TempFolder folder;
    const std::string target = "unix:" + folder.path() + "/s";
    Process server({"--listen=" + target});
    ASSERT_NE(server.WaitForAddress(), "") << server.output();
    ClientOptions options;
    options.local_calls = local;
    options.retry.enabled = false;
    SessionRequest opening = Opening(1);
    opening.model = "";
    opening.layers[0].bias = Bias::kNone;
    const auto session = Client::Create(target, options)->OpenSession(opening);
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->facts().transport, local ? Transport::kLocal : Transport::kGrpc);
    const Numbers q(1, 1, 1), k(1, 1, 2), v(1, 1, 3);
    ASSERT_TRUE((*session)->Step(StepOf(q, k, v)).ok());
    server.Signal(SIGKILL);
    server.Wait();
    EXPECT_EQ((*session)->Step(StepOf(q, k, v)).status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST(SessionClient, AnOpeningHasADeadline) {
  absl::StatusOr<Client> nobody = Client::Create("127.0.0.1:1");
  CallOptions options;
  options.deadline = absl::Now() + absl::Seconds(5);
  EXPECT_EQ(nobody->OpenSession(Opening(1), options).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attnd::e2e
