// Large calls travel in pieces, and nobody who makes them can tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/client.h"
#include "bounded.h"
#include "fake_server.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

using testing::HasSubstr;

// 8 pieces of 1 MiB.
Sizes Cuttable() { return {2, 4, 4, 512, 512, 128, 128}; }

std::string OutputOf(const ComputeReply& reply) {
  std::string bytes(reply.output.size_bytes(), '\0');
  reply.output.CopyTo(bytes.data());
  return bytes;
}

// A cheap stand-in for attention that still tells every row of every piece apart.
grpc::Status EchoValues(grpc::ServerContext*, const v1::ComputeAttentionRequest& request,
                        v1::ComputeAttentionResponse& response) {
  response.set_output(request.v());
  response.set_dtype(v1::DTYPE_FP32);
  response.set_content_hash("abc");
  response.mutable_compute_time()->set_seconds(1);
  if (request.return_log_sum_exp()) {
    const auto rows = static_cast<std::size_t>(request.batch() * request.heads() * request.query_length());
    std::vector<float> values(rows);
    for (std::size_t i = 0; i < rows; ++i) std::memcpy(&values[i], request.q().data() + i * 128 * 4, 4);
    response.set_log_sum_exp(values.data(), rows * 4);
  }
  return grpc::Status::OK;
}

absl::StatusOr<ComputeReply> Call(Client& client, const ComputeRequest& request, bool later,
                                  const CallOptions& options = {}) {
  return later ? Get(client.ComputeFuture(request, options)) : client.Compute(request, options);
}

class StreamTest : public testing::TestWithParam<bool> {
 protected:
  StreamTest() : server_({&service_}), client_(*Client::Create(server_.target())) { service_.handler = EchoValues; }
  FakeAttention service_;
  FakeServer server_;
  Client client_;
};

TEST_P(StreamTest, ALargeCallComesBackWhole) {
  TestRequest t(Cuttable());
  for (const std::size_t at_once : std::initializer_list<std::size_t>{1, 3, 4}) {
    service_.pieces_at_once = at_once;
    service_.pieces = 0;
    const auto reply = Call(client_, t.request, GetParam());
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(t.v.data()), t.v.size() * 4));
    EXPECT_EQ(reply->output.sizes(), (std::array<std::int64_t, 4>{2, 4, 512, 128}));
    EXPECT_EQ(service_.pieces, 8);
    EXPECT_EQ(reply->compute_time, absl::Seconds(8));
    EXPECT_EQ(reply->pieces, 8);
    EXPECT_EQ(reply->content_hash, "abc");
  }
  EXPECT_EQ(service_.streams, 3);
}

// A server that stops waits for what is said to come.
TEST_P(StreamTest, EveryPieceButTheLastSaysThatMoreFollow) {
  TestRequest t(Cuttable());
  ASSERT_TRUE(Call(client_, t.request, GetParam()).ok());
  EXPECT_EQ(service_.pieces, 8);
  EXPECT_EQ(service_.last_pieces, 1);
}

// A large call over two servers, without repeats of the whole.
class TwoServersTest : public StreamTest {
 protected:
  TwoServersTest() {
    other_.handler = EchoValues;
    // Until both are connected; nothing of that is counted.
    TestRequest small(Cuttable());
    while (service_.streams == 0 || other_.streams == 0) {
      if (const auto reply = Call(both_, small.request, GetParam()); !reply.ok()) {
        ADD_FAILURE() << reply.status();
        return;
      }
    }
    service_.streams = service_.pieces = other_.streams = other_.pieces = 0;
  }

  absl::StatusOr<ComputeReply> CallLarge() { return Call(both_, large_.request, GetParam()); }
  void ExpectWhole(const absl::StatusOr<ComputeReply>& reply) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(large_.v.data()), large_.v.size() * 4));
  }

  static ClientOptions Options() {
    ClientOptions options;
    options.load_balancing_policy = "round_robin";
    options.retry.enabled = false;
    return options;
  }

  FakeAttention other_;
  FakeServer also_{{&other_}};
  Client both_{*Client::Create(absl::StrCat("ipv4:", server_.target(), ",", also_.target()), Options())};
  TestRequest large_{{12, 4, 4, 512, 512, 128, 128}};  // 48 pieces
};

// What it has been sent it answers, and the other one gets the rest.
TEST_P(TwoServersTest, NoMorePiecesForAServerThatStops) {
  other_.going_away = true;
  ExpectWhole(CallLarge());
  EXPECT_EQ(service_.pieces + other_.pieces, 48);
  EXPECT_LE(other_.pieces, 4 * other_.streams) << "no more than are under way on a stream at once";
  service_.going_away = true;
  ExpectWhole(CallLarge());  // no server stays, and both finish what they have begun
}

// Takes its time, so that a server whose streams end early ends them while this one still asks for pieces: what comes
// back later is nobody's to send, and the call fails.
grpc::Status EchoSlowly(grpc::ServerContext* context, const v1::ComputeAttentionRequest& request,
                        v1::ComputeAttentionResponse& response) {
  absl::SleepFor(absl::Milliseconds(20));
  return EchoValues(context, request, response);
}

TEST_P(TwoServersTest, WhatAStoppingServerRefusesGoesToTheOther) {
  service_.handler = EchoSlowly;
  other_.handler = [](grpc::ServerContext*, const v1::ComputeAttentionRequest&, v1::ComputeAttentionResponse&) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping");
  };
  ExpectWhole(CallLarge());
  EXPECT_GT(other_.pieces, 0);
  EXPECT_EQ(service_.pieces, 48);
  service_.handler = other_.handler.get();
  EXPECT_TRUE(absl::IsUnavailable(CallLarge().status())) << "nobody is left";
}

TEST_P(TwoServersTest, WhatABrokenStreamDidNotAnswerGoesToTheOther) {
  service_.handler = EchoSlowly;
  other_.breaks_after = 1;
  ExpectWhole(CallLarge());
  EXPECT_GT(other_.pieces, 0);
  service_.breaks_after = 0;
  EXPECT_TRUE(absl::IsUnavailable(CallLarge().status())) << "nobody is left";
}

// Of an error that another server would give, too.
TEST_P(TwoServersTest, OtherErrorsEndTheCall) {
  other_.handler = [](grpc::ServerContext*, const v1::ComputeAttentionRequest&, v1::ComputeAttentionResponse&) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  };
  EXPECT_TRUE(absl::IsResourceExhausted(CallLarge().status()));
}

// Then nothing is sent that is refused.
TEST_P(StreamTest, CallsAskFirstOnceTheyAreTold) {
  TestRequest t(Cuttable());
  ASSERT_TRUE(Call(client_, t.request, GetParam()).ok());
  EXPECT_EQ(service_.asked, 0);
  service_.busy = true;
  EXPECT_TRUE(absl::IsResourceExhausted(Call(client_, t.request, GetParam()).status()));
  EXPECT_EQ(service_.asked, 0) << "it did not know";
  service_.streams = service_.pieces = 0;
  EXPECT_TRUE(absl::IsResourceExhausted(Call(client_, t.request, GetParam()).status()));
  EXPECT_GT(service_.streams, 0);
  EXPECT_EQ(service_.asked, service_.streams);
  service_.busy = false;
  service_.streams = service_.pieces = service_.asked = 0;
  const auto reply = Call(client_, t.request, GetParam());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(t.v.data()), t.v.size() * 4));
  EXPECT_EQ(service_.asked, service_.streams);
  EXPECT_EQ(service_.pieces, 8);
  EXPECT_EQ(service_.last_pieces, 2) << "of the first call and of this one";
}

TEST_P(StreamTest, ResultsLandInTheCallersMemory) {
  TestRequest t(Cuttable());
  std::vector<float> output(t.output_values), log_sum_exp(2 * 4 * 512);
  t.request.return_log_sum_exp = true;
  t.request.output = {output.data(), output.size() * 4};
  t.request.log_sum_exp = {log_sum_exp.data(), log_sum_exp.size() * 4};
  const auto reply = Call(client_, t.request, GetParam());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(output, t.v);
  for (std::size_t i = 0; i < log_sum_exp.size(); ++i) ASSERT_EQ(log_sum_exp[i], t.q[i * 128]);
  EXPECT_EQ(reply->output.size_bytes(), 0U);
}

TEST_P(StreamTest, SequenceFirstToo) {
  TestRequest t({1, 4, 4, 1024, 1024, 128, 128});
  t.request.layout = Layout::kBatchSequenceHeadDim;
  for (TensorView* tensor : {&t.request.q, &t.request.k, &t.request.v}) std::swap(tensor->sizes[1], tensor->sizes[2]);
  const auto reply = Call(client_, t.request, GetParam());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(t.v.data()), t.v.size() * 4));
  EXPECT_EQ(service_.pieces, 4);
}

TEST_P(StreamTest, EachPieceSaysWhichHeadsItHas) {
  absl::Mutex mutex;
  std::set<std::int64_t> first_heads;
  std::set<std::int64_t> table_heads;
  service_.handler = [&](grpc::ServerContext* context, const v1::ComputeAttentionRequest& request,
                         v1::ComputeAttentionResponse& response) {
    absl::MutexLock lock(&mutex);
    first_heads.insert(request.first_head());
    table_heads.insert(request.table_heads());
    return EchoValues(context, request, response);
  };
  TestRequest t(Cuttable());
  ASSERT_TRUE(Call(client_, t.request, GetParam()).ok());
  EXPECT_THAT(first_heads, testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(table_heads, testing::ElementsAre(4));
  t.request.first_head = 10;
  first_heads.clear();
  table_heads.clear();
  ASSERT_TRUE(Call(client_, t.request, GetParam()).ok());
  EXPECT_THAT(first_heads, testing::ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(table_heads, testing::ElementsAre(0));
}

TEST_P(StreamTest, APieceThatFailsFailsTheCallOnceAndEndsTheRest) {
  const auto computed = std::make_shared<std::atomic<int>>(0);  // handlers may outlive this function
  service_.handler = [computed](grpc::ServerContext* context, const v1::ComputeAttentionRequest& request,
                                v1::ComputeAttentionResponse& response) {
    ++*computed;
    if (request.first_head() == 1) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such head");
    return EchoValues(context, request, response);
  };
  TestRequest t({16, 4, 4, 512, 512, 128, 128});  // 64 pieces
  const auto reply = Call(client_, t.request, GetParam());
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(reply.status().message(), "no such head");
  EXPECT_LT(*computed, 64);
}

TEST_P(StreamTest, AServerWithoutStreamsGetsOneMessage) {
  class OnlyUnary : public FakeAttention {
    grpc::Status StreamAttention(grpc::ServerContext*, Pieces*) override {
      ++streams;
      return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "");
    }
  } service;
  service.handler = EchoValues;
  FakeServer server({&service});
  Client client = *Client::Create(server.target());
  TestRequest t(Cuttable());
  for (int i = 0; i < 2; ++i) {
    const auto reply = Call(client, t.request, GetParam());
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(t.v.data()), t.v.size() * 4));
  }
  EXPECT_EQ(service.streams, 1) << "asked once";
}

TEST_P(StreamTest, PiecesOfTwoModelsAreNotMixed) {
  const auto calls = std::make_shared<std::atomic<int>>(0);
  const auto mixed_streams = std::make_shared<std::atomic<int>>(1);
  service_.handler = [this, calls, mixed_streams](grpc::ServerContext* context,
                                                  const v1::ComputeAttentionRequest& request,
                                                  v1::ComputeAttentionResponse& response) {
    const grpc::Status status = EchoValues(context, request, response);
    if (request.batch() == 1 && service_.streams <= *mixed_streams && (*calls)++ % 2 == 1) {
      response.set_content_hash("other");
    }
    return status;
  };
  TestRequest t(Cuttable());
  const auto reply = Call(client_, t.request, GetParam());
  ASSERT_TRUE(reply.ok()) << "repeated, and the model stayed: " << reply.status();
  EXPECT_EQ(reply->content_hash, "abc");
  EXPECT_EQ(service_.streams, 2);
  // While it never stays, the last attempt is one message, which one model answers.
  *mixed_streams = 1000;
  const auto whole = Call(client_, t.request, GetParam());
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->content_hash, "abc");
  EXPECT_EQ(service_.streams, 4);
}

TEST_P(StreamTest, ABrokenStreamFailsTheCallWithItsReason) {
  class Broken : public FakeAttention {
    grpc::Status StreamAttention(grpc::ServerContext*, Pieces* stream) override {
      v1::StreamAttentionRequest piece;
      stream->Read(&piece);
      switch (how) {
        case 0:
          return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too much");
        case 1:
          return grpc::Status::OK;  // without an answer
        case 2: {
          v1::StreamAttentionResponse response;
          response.set_id(99);
          stream->Write(response);
          return grpc::Status::OK;
        }
        default: {
          v1::StreamAttentionResponse response;  // of the wrong size
          response.set_id(piece.id());
          response.set_output("short");
          response.mutable_result()->set_dtype(v1::DTYPE_FP32);
          stream->Write(response);
          while (stream->Read(&piece)) {
          }
          return grpc::Status::OK;
        }
      }
    }

   public:
    std::atomic<int> how = 0;  // read by streams that outlive the call that another one failed
  } service;
  FakeServer server({&service});
  Client client = *Client::Create(server.target());
  TestRequest t(Cuttable());
  const std::pair<absl::StatusCode, const char*> expected[] = {{absl::StatusCode::kResourceExhausted, "too much"},
                                                               {absl::StatusCode::kInternal, "before it had answered"},
                                                               {absl::StatusCode::kInternal, "piece 99"},
                                                               {absl::StatusCode::kInternal, "got 5"}};
  for (service.how = 0; service.how < 4; ++service.how) {
    const auto reply = Call(client, t.request, GetParam());
    EXPECT_EQ(reply.status().code(), expected[service.how].first) << reply.status();
    EXPECT_THAT(std::string(reply.status().message()), HasSubstr(expected[service.how].second));
  }
}

TEST_P(StreamTest, DeadlineAndCancellationEndIt) {
  const auto go_on = std::make_shared<absl::Notification>();  // handlers may outlive this function
  service_.handler = [go_on](grpc::ServerContext*, const v1::ComputeAttentionRequest&, v1::ComputeAttentionResponse&) {
    EXPECT_TRUE(test::Comes(*go_on));
    return grpc::Status::OK;
  };
  {
    TestRequest t(Cuttable());
    CallOptions options;
    options.deadline = absl::Now() + absl::Milliseconds(200);
    EXPECT_EQ(Call(client_, t.request, GetParam(), options).status().code(), absl::StatusCode::kDeadlineExceeded);
    options.deadline = absl::InfiniteFuture();
    options.cancellation = std::make_shared<attnd::Cancellation>();
    options.cancellation->Cancel();
    EXPECT_EQ(Call(client_, t.request, GetParam(), options).status().code(), absl::StatusCode::kCancelled);
  }  // frees the tensors while the server still has the pieces
  go_on->Notify();
}

TEST_P(StreamTest, OneCallSpreadsOverAllServersOfAName) {
  FakeAttention services[3];
  std::vector<std::unique_ptr<FakeServer>> servers;
  std::string target = "ipv4:";
  for (FakeAttention& service : services) {
    service.handler = EchoValues;
    servers.push_back(std::make_unique<FakeServer>(std::vector<grpc::Service*>{&service}));
    absl::StrAppend(&target, target.back() == ':' ? "" : ",", servers.back()->target());
  }
  ClientOptions options;
  options.load_balancing_policy = "round_robin";
  Client client = *Client::Create(target, options);
  TestRequest t({16, 4, 4, 512, 512, 128, 128});  // 64 pieces
  const auto used = [&](bool reset) {
    int count = 0;
    for (FakeAttention& service : services) {
      count += service.pieces > 0 ? 1 : 0;
      if (reset) service.pieces = 0;
    }
    return count;
  };
  // The first calls may be made before all servers are connected.
  for (int i = 0; i < 100 && used(true) < 3; ++i) ASSERT_TRUE(Call(client, t.request, GetParam()).ok());
  const auto reply = Call(client, t.request, GetParam());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(used(false), 3);
  EXPECT_EQ(OutputOf(*reply), std::string(reinterpret_cast<const char*>(t.v.data()), t.v.size() * 4));
}

TEST_P(StreamTest, ManyAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      TestRequest t(Cuttable());
      for (int round = 0; round < 5; ++round) {
        std::vector<float> output(t.output_values);
        t.request.output = {output.data(), output.size() * 4};
        const auto reply = Call(client_, t.request, GetParam());
        ASSERT_TRUE(reply.ok()) << reply.status();
        ASSERT_EQ(output, t.v);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::string NameOf(const testing::TestParamInfo<bool>& info) { return info.param ? "Later" : "Now"; }
INSTANTIATE_TEST_SUITE_P(NowAndLater, StreamTest, testing::Bool(), NameOf);
INSTANTIATE_TEST_SUITE_P(NowAndLater, TwoServersTest, testing::Bool(), NameOf);

}  // namespace
}  // namespace attnd::client
