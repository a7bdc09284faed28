// Sessions through the C++ client, against whole calls: the same bits.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

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

Client ClientOf(TestServer& server) { return *Client::Create(server.address()); }

TEST(SessionClientTest, GivesTheBitsOfWholeCalls) {
  TestServer server;
  Client client = ClientOf(server);
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(1));
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_GT((*session)->facts().reserved_bytes, 0);
  EXPECT_EQ((*session)->facts().page_tokens, 64);
  EXPECT_FALSE((*session)->facts().content_hash.empty());
  std::string keys[kHeads], values[kHeads];
  for (std::int64_t i = 0; i < 5; ++i) {
    const std::int64_t tokens = i == 0 ? 7 : 1;
    const auto seed = static_cast<unsigned>(10 * i);
    const Numbers q(1, tokens, seed), k(1, tokens, seed + 1), v(1, tokens, seed + 2);
    StepRequest step = StepOf(q, k, v);
    step.return_log_sum_exp = true;
    step.expected_lengths = {i == 0 ? 0 : 6 + i};
    const absl::StatusOr<StepReply> reply = (*session)->Step(step);
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
    const absl::StatusOr<ComputeReply> expected = client.Compute(whole);
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_EQ(reply->output.sizes(), expected->output.sizes());
    EXPECT_TRUE(BytesOf(reply->output) == BytesOf(expected->output)) << "step " << i;
    EXPECT_EQ(reply->log_sum_exp, expected->log_sum_exp);
  }
  EXPECT_TRUE((*session)->Close().ok());
  EXPECT_TRUE((*session)->Close().ok());
  EXPECT_EQ((*session)->Step({}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(SessionClientTest, BeamsAndSources) {
  TestServer server;
  Client client = ClientOf(server);
  SessionRequest opening = Opening(4);
  opening.sources = 2;
  opening.max_source_tokens = 50;
  opening.dtype = DType::kBf16;
  opening.layers.push_back(SelfLayer());
  opening.layers[1].kind = SessionLayer::Kind::kCross;
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(opening);
  ASSERT_TRUE(session.ok()) << session.status();
  const Numbers source(2, 50, 1), q(4, 1, 2), k(4, 1, 3), v(4, 1, 4);
  StepRequest fill;
  fill.layer = 1;
  fill.k = fill.v = source.view;
  fill.key_lengths = {50, 30};
  ASSERT_THAT((*session)->Step(fill)->lengths, ElementsAre(50, 30));
  ASSERT_TRUE((*session)->Step(StepOf(q, k, v)).ok());
  StepRequest across;
  across.layer = 1;
  across.q = q.view;
  across.reorder = {1, 0, 3, 3};
  across.output_dtype = DType::kFp16;
  const absl::StatusOr<StepReply> reply = (*session)->Step(across);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->output.dtype(), DType::kFp16);
  EXPECT_EQ(reply->output.size_bytes(), 4u * kHeads * kDim * 2);
}

TEST(SessionClientTest, AnErrorChangesNothing) {
  TestServer server;
  Client client = ClientOf(server);
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(2));
  ASSERT_TRUE(session.ok()) << session.status();
  const Numbers q(2, 1, 1), k(2, 1, 2), v(2, 1, 3), wrong(1, 1, 4);
  EXPECT_TRUE((*session)->Step(StepOf(q, k, v)).ok());
  StepRequest step = StepOf(q, wrong, v);
  const absl::Status refused = (*session)->Step(step).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(refused)->field, "k");
  step = StepOf(q, k, v);
  step.layer = 1;
  EXPECT_EQ(GetErrorDetail((*session)->Step(step).status())->field, "layer");
  step.layer = 0;
  step.v.dtype = DType::kFp16;
  EXPECT_EQ(GetErrorDetail((*session)->Step(step).status())->field, "v.dtype");
  step = StepOf(q, k, v);
  step.timeout = absl::ZeroDuration();
  EXPECT_EQ((*session)->Step(step).status().code(), absl::StatusCode::kDeadlineExceeded);
  step.timeout = absl::Seconds(60);
  EXPECT_THAT((*session)->Step(step)->lengths, ElementsAre(2, 2));
  SessionRequest opening = Opening(0);
  EXPECT_EQ(GetErrorDetail(client.OpenSession(opening).status())->field, "open.rows");
}

TEST(SessionClientTest, OperatorsSeeAndEvictThem) {
  TestServer server;
  Client client = ClientOf(server);
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(3));
  ASSERT_TRUE(session.ok()) << session.status();
  const auto list = client.ListSessions();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ(list->front().rows, 3);
  EXPECT_EQ(list->front().model, kModel);
  EXPECT_EQ(list->front().reserved_bytes, (*session)->facts().reserved_bytes);
  EXPECT_TRUE(client.EvictSession(list->front().id).ok());
  for (int i = 0; i < 2; ++i) {
    const absl::Status evicted = (*session)->Step({}).status();
    EXPECT_EQ(evicted.code(), absl::StatusCode::kAborted) << evicted;
    EXPECT_THAT(evicted.message(), HasSubstr("evicted"));
  }
  EXPECT_TRUE((*session)->Close().ok());
  EXPECT_EQ(client.EvictSession(list->front().id).code(), absl::StatusCode::kNotFound);
}

TEST(SessionClientTest, IsToldOfAStopAndOfALoss) {
  server::Options options = TestOptions();
  options.drain = absl::Seconds(1);
  TestServer server(options);
  Client client = ClientOf(server);
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(1));
  ASSERT_TRUE(session.ok()) << session.status();
  const Numbers q(1, 1, 1), k(1, 1, 2), v(1, 1, 3);
  EXPECT_FALSE((*session)->going_away().has_value());
  std::thread stop([&] { server.server().Stop(); });
  while (!(*session)->going_away().has_value()) {
    ASSERT_TRUE((*session)->Step(StepOf(q, k, v)).ok());
  }
  EXPECT_EQ(*(*session)->going_away(), absl::Seconds(1));
  stop.join();
  EXPECT_FALSE((*session)->Step(StepOf(q, k, v)).ok());
}

TEST(SessionClientTest, ThreadsTakeTurns) {
  TestServer server;
  Client client = ClientOf(server);
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(1));
  ASSERT_TRUE(session.ok()) << session.status();
  const Numbers q(1, 1, 1), k(1, 1, 2), v(1, 1, 3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE((*session)->Step(StepOf(q, k, v)).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT((*session)->Step({})->lengths, ElementsAre(80));
}

TEST(SessionClientTest, AnOpeningHasADeadline) {
  absl::StatusOr<Client> nobody = Client::Create("127.0.0.1:1");
  CallOptions options;
  options.deadline = absl::Now() + absl::Seconds(5);
  EXPECT_EQ(nobody->OpenSession(Opening(1), options).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attnd::e2e
