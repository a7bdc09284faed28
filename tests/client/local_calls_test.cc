// Servers at the local socket that break off, say nothing, or say what is no answer.

#include <grpcpp/security/credentials.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "attnd/shm/protocol.h"
#include "attnd/v1/local.pb.h"
#include "bounded.h"
#include "fake_local_server.h"
#include "fake_server.h"
#include "gtest/gtest.h"
#include "signals.h"
#include "temp_folder.h"
#include "test_request.h"

namespace attnd::client {
namespace {

// What to send to one datagram; nullopt: nothing, "": close the connection.
using Answerer = std::function<std::optional<std::string>(const v1::LocalRequest&)>;

std::string Bytes(const v1::LocalReply& reply) { return reply.SerializeAsString(); }

std::string Welcome(int code = 0, std::uint32_t version = 1) {
  v1::LocalReply reply;
  reply.mutable_welcome()->set_code(code);
  reply.mutable_welcome()->set_version(version);
  reply.mutable_welcome()->set_max_message_bytes(65536);
  reply.mutable_welcome()->set_max_calls(256);
  return Bytes(reply);
}

v1::LocalReply Answer(const v1::LocalCall& call) {
  v1::LocalReply reply;
  reply.mutable_answer()->set_id(call.id());
  v1::ComputeAttentionResponse& result = *reply.mutable_answer()->mutable_result();
  PlainAttention(call.request(), *result.mutable_output(), *result.mutable_log_sum_exp());
  if (!call.request().return_log_sum_exp()) result.clear_log_sum_exp();
  result.set_dtype(v1::DTYPE_FP32);
  result.set_version(77);  // the server behind gRPC says another
  return reply;
}

class LocalCallsTest : public testing::Test {
 protected:
  std::string path() const { return folder_.path() + "/attnd.sock"; }
  Client NewClient(bool repeats = true) const {
    ClientOptions options;
    options.retry.enabled = repeats;
    return *Client::Create("unix:" + path(), options);
  }
  std::unique_ptr<FakeLocalServer> Serving(Answerer answer) const {
    auto server = std::make_unique<FakeLocalServer>(path() + shm::kSocketSuffix);
    const FakeLocalServer::Handler handler = [answer](const FakeLocalServer::Peer& peer,
                                                      const v1::LocalRequest& request) {
      const std::optional<std::string> datagram = answer(request);
      if (!datagram.has_value()) return true;
      return !datagram->empty() && FakeLocalServer::Send(peer, *datagram);
    };
    server->OnHello(handler);
    server->OnCall(handler);
    return server;
  }
  // A server that welcomes, and answers calls by `answer`.
  std::unique_ptr<FakeLocalServer> Answering(
      std::function<std::optional<std::string>(const v1::LocalCall&)> answer) const {
    return Serving([answer](const v1::LocalRequest& request) {
      return request.has_hello() ? std::optional<std::string>(Welcome()) : answer(request.call());
    });
  }
  static std::optional<std::string> Right(const v1::LocalCall& call) { return Bytes(Answer(call)); }

  // What one call without repeats ends with.
  absl::Status StatusOf(const CallOptions& options = {}) const {
    TestRequest t;
    return NewClient(/*repeats=*/false).Compute(t.request, options).status();
  }

  const test::TempFolder folder_;
  FakeAttention attention_;
  FakeServer server_{{&attention_}, "unix:" + path()};
};

CallOptions Within(absl::Duration time) {
  CallOptions options;
  options.deadline = absl::Now() + time;
  return options;
}

TEST_F(LocalCallsTest, ACallAndItsAnswer) {
  const auto local = Answering(Right);
  Client client = NewClient();
  TestRequest t;
  t.request.return_log_sum_exp = true;
  ClientOptions without;
  without.local_calls = false;
  const auto expected = Client::Create("unix:" + path(), without)->Compute(t.request);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(local->hellos.load(), 0);
  std::vector<float> output(t.output_values);
  for (int i = 0; i < 3; ++i) {
    t.request.output = i == 2 ? Destination{output.data(), output.size() * sizeof(float)} : Destination{};
    t.request.output_in_segments = i == 1;
    const auto reply = client.Compute(t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
    EXPECT_EQ(reply->version, 77U);
    if (i < 2) reply->output.CopyTo(output.data());
    EXPECT_EQ(std::memcmp(output.data(), expected->output.data(), expected->output.size_bytes()), 0);
    EXPECT_EQ(reply->log_sum_exp, expected->log_sum_exp);
  }
  EXPECT_EQ(local->hellos.load(), 1);
  EXPECT_EQ(local->calls.load(), 3);
}

TEST_F(LocalCallsTest, WhoOffersNoCallsIsAskedOnceAndCalledByGrpc) {
  v1::LocalReply answer;
  answer.mutable_answer()->set_id(1);
  for (const std::string& words :
       {std::string(), Welcome(12), Welcome(0, 2), Bytes(answer), std::string("attndshm"), std::string("\xff\xff")}) {
    const auto local = Serving([&words](const v1::LocalRequest&) { return words; });
    Client client = NewClient();
    TestRequest t;
    for (int i = 0; i < 3; ++i) {
      const auto reply = client.Compute(t.request);
      ASSERT_TRUE(reply.ok()) << reply.status();
      EXPECT_EQ(reply->transport, Transport::kGrpc);
    }
    EXPECT_EQ(local->hellos.load(), 1);
    EXPECT_EQ(local->calls.load(), 0);
  }
}

TEST_F(LocalCallsTest, NobodyAtTheSocketIsNoError) {
  TestRequest t;
  const auto reply = NewClient().Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->transport, Transport::kGrpc);
}

TEST_F(LocalCallsTest, ASilentSocketHoldsUpOneCallForASecond) {
  const auto local = Serving([](const v1::LocalRequest&) { return std::nullopt; });
  Client client = NewClient();
  TestRequest t;
  const absl::Time start = absl::Now();
  for (int i = 0; i < 3; ++i) {
    const auto reply = client.Compute(t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kGrpc);
  }
  EXPECT_GE(absl::Now() - start, absl::Seconds(1));
  EXPECT_EQ(local->hellos.load(), 1);
}

TEST_F(LocalCallsTest, AConnectionLostDuringACallIsUnavailable) {
  const auto local = Answering([](const v1::LocalCall&) { return ""; });
  const absl::Status status = StatusOf();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(local->calls.load(), 1);
}

TEST_F(LocalCallsTest, ACallThatWasLostIsRepeated) {
  std::atomic<int> calls{0};
  const auto local =
      Answering([&](const v1::LocalCall& call) { return ++calls == 1 ? std::optional<std::string>("") : Right(call); });
  TestRequest t;
  const auto reply = NewClient().Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->transport, Transport::kLocal);
  EXPECT_EQ(calls.load(), 2);
}

TEST_F(LocalCallsTest, WhatIsNoAnswerIsAnErrorAndEndsTheConnection) {
  using Reply = std::function<std::string(const v1::LocalCall&)>;
  const std::vector<std::pair<std::string, Reply>> kinds = {
      {"garbage", [](const auto&) { return std::string("\xff\x01\x02garbage"); }},
      {"a welcome", [](const auto&) { return Welcome(); }},
      {"cut short",
       [](const v1::LocalCall& call) {
         const std::string whole = Bytes(Answer(call));
         return whole.substr(0, whole.size() / 2);
       }},
      {"of another call",
       [](const v1::LocalCall& call) {
         v1::LocalReply reply = Answer(call);
         reply.mutable_answer()->set_id(call.id() + 1);
         return Bytes(reply);
       }},
      {"too large", [](const v1::LocalCall& call) { return Bytes(Answer(call)) + std::string(66000, '\0'); }},
  };
  for (const auto& [name, kind] : kinds) {
    std::atomic<int> calls{0};
    const auto local = Answering([&, &kind = kind](const v1::LocalCall& call) {
      return std::optional<std::string>(++calls == 1 ? kind(call) : Bytes(Answer(call)));
    });
    Client client = NewClient();
    TestRequest t;
    EXPECT_EQ(client.Compute(t.request).status().code(), absl::StatusCode::kInternal) << name;
    EXPECT_EQ(client.Compute(t.request)->transport, Transport::kLocal) << name;
    EXPECT_EQ(local->hellos.load(), 2) << name;
  }
}

TEST_F(LocalCallsTest, AnAnswerOfTheWrongSizeIsAnError) {
  const auto local = Answering([](const v1::LocalCall& call) {
    v1::LocalReply reply = Answer(call);
    reply.mutable_answer()->mutable_result()->mutable_output()->pop_back();
    return Bytes(reply);
  });
  EXPECT_EQ(StatusOf().code(), absl::StatusCode::kInternal);
}

TEST_F(LocalCallsTest, ADeadlineHoldsWhileTheServerIsSilentAndALateAnswerHarmsNothing) {
  std::atomic<int> calls{0};
  const auto local = Answering([&](const v1::LocalCall& call) {
    EXPECT_EQ(call.has_timeout(), calls == 0);
    if (++calls == 1) absl::SleepFor(absl::Milliseconds(300));
    return Right(call);
  });
  Client client = NewClient();
  TestRequest t;
  CallOptions options = Within(absl::Milliseconds(100));
  const absl::Status status = client.Compute(t.request, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_GE(absl::Now(), options.deadline);
  EXPECT_LT(absl::Now(), options.deadline + absl::Milliseconds(150)) << "it has waited for the answer";
  const auto reply = client.Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->transport, Transport::kLocal);
  EXPECT_EQ(local->hellos.load(), 2);
}

TEST_F(LocalCallsTest, ACancellationHoldsWhileTheServerIsSilent) {
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  std::atomic<bool> asked{false};
  const auto local = Answering([&](const v1::LocalCall&) {
    asked = true;
    return std::nullopt;
  });
  std::thread canceller([&] {
    while (!asked) absl::SleepFor(absl::Milliseconds(1));
    options.cancellation->Cancel();
  });
  const absl::Status status = StatusOf(options);
  canceller.join();
  EXPECT_EQ(status, absl::CancelledError("CANCELLED"));
}

// Its answer may come late: the connection is not the next call's, nor is another one made at once.
TEST_F(LocalCallsTest, AConnectionOfASilentServerIsNotUsedAgain) {
  std::atomic<bool> answers{false};
  const auto local = Answering([&](const v1::LocalCall& call) { return answers ? Right(call) : std::nullopt; });
  local->lifeless = true;
  ClientOptions options;
  options.retry.enabled = false;
  options.keepalive_time = options.keepalive_timeout = absl::Milliseconds(50);
  Client client = *Client::Create("unix:" + path(), options);
  TestRequest t;
  EXPECT_EQ(client.Compute(t.request, Within(absl::Seconds(20))).status().code(), absl::StatusCode::kUnavailable);
  answers = true;
  local->lifeless = false;
  EXPECT_EQ(client.Compute(t.request)->transport, Transport::kGrpc);
  EXPECT_EQ(local->calls.load(), 1);
}

// The local socket does not give what credentials ask for; a datagram has no metadata.
TEST_F(LocalCallsTest, CredentialsAndMetadataAreForGrpcAlone) {
  const auto local = Answering(Right);
  TestRequest t;
  CallOptions traced;
  traced.metadata = {{"trace", "1"}};
  ClientOptions secured;
  secured.credentials = grpc::InsecureChannelCredentials();
  for (const bool secure : {true, false}) {
    Client client = *Client::Create("unix:" + path(), secure ? secured : ClientOptions());
    const CallOptions options = secure ? CallOptions() : traced;
    EXPECT_EQ(client.Compute(t.request, options)->transport, Transport::kGrpc);
    EXPECT_EQ(Get(client.ComputeFuture(t.request, options))->transport, Transport::kGrpc);
  }
  EXPECT_EQ(local->calls.load(), 0);
}

TEST_F(LocalCallsTest, SignalsDisturbNoCall) {
  const auto local = Answering([](const v1::LocalCall& call) {
    absl::SleepFor(absl::Milliseconds(5));
    return Right(call);
  });
  Client client = NewClient();
  TestRequest t;
  const test::Signals signals;
  for (int i = 0; i < 20; ++i) {
    const auto reply = client.Compute(t.request, i % 2 == 0 ? CallOptions() : Within(absl::Seconds(20)));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kLocal);
  }
}

TEST_F(LocalCallsTest, WhatFitsIntoNoDatagramGoesByGrpc) {
  const auto local = Answering(Right);
  ClientOptions options;
  options.shared_memory = false;
  Client client = *Client::Create("unix:" + path(), options);
  TestRequest small, large(Large());
  EXPECT_EQ(client.Compute(large.request)->transport, Transport::kGrpc);
  EXPECT_EQ(client.Compute(small.request)->transport, Transport::kLocal);
  EXPECT_EQ(local->hellos.load(), 1);
}

}  // namespace
}  // namespace attnd::client
