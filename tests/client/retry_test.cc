// What a server refuses or loses is sent again: within the call's time, within a budget, and never what has effects.
#include "client/src/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "attnd/client.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "attnd/v1/session.grpc.pb.h"
#include "bounded.h"
#include "fake_server.h"
#include "test_request.h"

namespace attnd::client {
namespace {

using testing::HasSubstr;

TEST(RetryBudget, IsAShareOfTheCallsAndAReserve) {
  absl::Time now = absl::UnixEpoch();
  RetryBudget budget(0.2, 1, [&now] { return now; });
  const auto spend_all = [&budget] {
    int count = 0;
    while (count < 1000 && budget.Spend()) ++count;
    return count;
  };
  EXPECT_EQ(spend_all(), 10) << "the reserve, full at first";
  for (int i = 0; i < 50; ++i) budget.Earn();
  EXPECT_EQ(spend_all(), 10) << "a fifth";
  now += absl::Seconds(3);
  EXPECT_EQ(spend_all(), 3);
  now += absl::Hours(1);
  EXPECT_EQ(spend_all(), 10) << "saved up for ten seconds";
  now -= absl::Hours(2);
  EXPECT_EQ(spend_all(), 0) << "the clock was set back";
  now += absl::Seconds(2);
  EXPECT_EQ(spend_all(), 2);
}

// Refuses the first `refusals` calls.
struct Refusing {
  explicit Refusing(int refusals, grpc::StatusCode code = grpc::StatusCode::UNAVAILABLE,
                    const std::string& message = "refused") {
    service.handler = [this, refusals, code, message](grpc::ServerContext*, const v1::ComputeAttentionRequest& request,
                                                      v1::ComputeAttentionResponse& response) {
      if (calls++ < refusals) return grpc::Status(code, message);
      response.set_output(request.v());
      response.set_dtype(v1::DTYPE_FP32);
      response.set_content_hash("abc");
      return grpc::Status::OK;
    };
  }
  std::atomic<int> calls{0};
  FakeAttention service;
};

ClientOptions Quick() {
  ClientOptions options;
  options.retry.initial_backoff = absl::Milliseconds(1);
  options.retry.max_backoff = absl::Milliseconds(20);
  return options;
}

Sizes OneMessage() { return {1, 1, 1, 8, 8, 4, 4}; }
Sizes SixtyFourMebibytes() { return {1, 1, 1, 65536, 65536, 128, 128}; }  // of v, and one message
Sizes InPieces() { return {2, 4, 4, 512, 512, 128, 128}; }

class RetryTest : public testing::TestWithParam<bool> {
 protected:
  static absl::StatusOr<ComputeReply> Call(Client& client, const ComputeRequest& request,
                                           const CallOptions& options = {}) {
    return GetParam() ? Get(client.ComputeFuture(request, options)) : client.Compute(request, options);
  }
};

TEST_P(RetryTest, WhatWasRefusedIsServedLaterWhateverItsSize) {
  for (const grpc::StatusCode code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED}) {
    for (const Sizes& sizes : {OneMessage(), InPieces(), SixtyFourMebibytes()}) {
      Refusing refusing(3, code);
      FakeServer server({&refusing.service});
      Client client = *Client::Create(server.target(), Quick());
      TestRequest t(sizes);
      std::vector<float> output(t.output_values);
      t.request.output = {output.data(), output.size() * 4};
      const auto reply = Call(client, t.request);
      ASSERT_TRUE(reply.ok()) << reply.status();
      EXPECT_EQ(output, t.v);
    }
  }
}

TEST_P(RetryTest, OfTwoServersTheOtherServes) {
  Refusing refusing(1 << 30), serving(0);
  FakeServer first({&refusing.service}), second({&serving.service});
  ClientOptions options = Quick();
  options.load_balancing_policy = "round_robin";
  Client client = *Client::Create(absl::StrCat("ipv4:", first.target(), ",", second.target()), options);
  TestRequest t(OneMessage());
  for (int i = 0; i < 50; ++i) {
    const auto reply = Call(client, t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
  }
}

TEST_P(RetryTest, ADeadServerGetsNoMoreThanTheBudget) {
  Refusing refusing(1 << 30);
  FakeServer server({&refusing.service});
  ClientOptions options = Quick();
  options.retry.reserve_per_second = 0;
  Client client = *Client::Create(server.target(), options);
  TestRequest t(OneMessage());
  absl::Status last;
  for (int i = 0; i < 200; ++i) last = Call(client, t.request).status();
  EXPECT_EQ(last.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(last.message()), HasSubstr("refused"));
  EXPECT_EQ(refusing.calls, 240);
}

TEST_P(RetryTest, WhatIsNotRefusedAsAWholeIsNotRepeated) {
  Refusing refusing(1 << 30, grpc::StatusCode::INVALID_ARGUMENT);
  FakeServer server({&refusing.service});
  Client client = *Client::Create(server.target(), Quick());
  TestRequest t(OneMessage());
  const absl::Status status = Call(client, t.request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "refused");
  EXPECT_EQ(refusing.calls, 1);
}

TEST_P(RetryTest, AConnectionThatClosedBeforeTheAnswerIsAnotherTry) {
  Refusing refusing(2, grpc::StatusCode::UNKNOWN, "Stream removed");
  FakeServer server({&refusing.service});
  Client client = *Client::Create(server.target(), Quick());
  TestRequest t(OneMessage());
  const auto reply = Call(client, t.request);
  EXPECT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(refusing.calls, 3);
}

TEST_P(RetryTest, SwitchedOffThereAreNone) {
  Refusing refusing(1);
  FakeServer server({&refusing.service});
  ClientOptions options;
  options.retry.enabled = false;
  Client client = *Client::Create(server.target(), options);
  TestRequest t(OneMessage());
  EXPECT_EQ(Call(client, t.request).status(), absl::UnavailableError("refused"));
  EXPECT_EQ(refusing.calls, 1);
}

TEST_P(RetryTest, TheLastErrorIsTold) {
  Refusing refusing(1 << 30);
  FakeServer server({&refusing.service});
  ClientOptions patient;
  patient.retry.initial_backoff = patient.retry.max_backoff = absl::Hours(1);  // the repeat would be after the deadline
  Client client = *Client::Create(server.target(), patient);
  TestRequest t(OneMessage());
  CallOptions options;
  options.deadline = absl::Now() + absl::Minutes(1);
  const absl::Status status = Call(client, t.request, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused (attempt 1 in "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("no time for another"));
}

TEST_P(RetryTest, TheCallerCancelsBetweenAttempts) {
  Refusing refusing(1 << 30);
  FakeServer server({&refusing.service});
  ClientOptions options;
  options.retry.initial_backoff = options.retry.max_backoff = absl::Seconds(20);
  Client client = *Client::Create(server.target(), options);
  TestRequest t(OneMessage());
  CallOptions call;
  call.cancellation = std::make_shared<attnd::Cancellation>();
  std::thread canceller([&] {
    while (refusing.calls == 0) std::this_thread::yield();
    absl::SleepFor(absl::Milliseconds(50));
    call.cancellation->Cancel();
  });
  EXPECT_EQ(Call(client, t.request, call).status().code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_EQ(refusing.calls, 1);
}

TEST_P(RetryTest, AServerThatIsAwayIsWaitedForAndCostsNoBudget) {
  const std::string address = absl::StrCat("unix:/tmp/attnd-retry-", getpid(), ".sock");
  ClientOptions options = Quick();
  options.retry.reserve_per_second = 0.1;  // one repeat
  options.shared_memory = false;
  Client client = *Client::Create(address, options);
  Refusing serving(0);
  const std::vector<grpc::Service*> services{&serving.service};
  auto server = std::make_unique<FakeServer>(services, address);
  TestRequest t(OneMessage());
  ASSERT_TRUE(Call(client, t.request).ok());
  server.reset();
  std::thread starter([&] {
    absl::SleepFor(absl::Milliseconds(500));
    server = std::make_unique<FakeServer>(services, address);
  });
  const auto reply = Call(client, t.request);
  starter.join();
  EXPECT_TRUE(reply.ok()) << reply.status();
}

TEST_P(RetryTest, AServerThatHasNeverBeenThereIsWaitedForWhereAsked) {
  const std::string address = absl::StrCat("unix:/tmp/attnd-first-", getpid(), ".sock");
  ClientOptions options = Quick();
  options.shared_memory = false;
  TestRequest t(OneMessage());
  Client hasty = *Client::Create(address, options);
  EXPECT_EQ(Call(hasty, t.request).status().code(), absl::StatusCode::kUnavailable);
  options.retry.wait_for_first_server = true;
  Client client = *Client::Create(address, options);
  Refusing serving(0);
  std::unique_ptr<FakeServer> server;
  std::thread starter([&] {
    absl::SleepFor(absl::Milliseconds(300));
    server = std::make_unique<FakeServer>(std::vector<grpc::Service*>{&serving.service}, address);
  });
  const auto reply = Call(client, t.request);
  starter.join();
  EXPECT_TRUE(reply.ok()) << reply.status();
}

TEST_P(RetryTest, AServerThatDoesNotComeBackIsGivenUp) {
  ClientOptions options = Quick();
  options.retry.max_time = absl::Milliseconds(300);
  Refusing serving(0);
  auto server = std::make_unique<FakeServer>(std::vector<grpc::Service*>{&serving.service});
  Client client = *Client::Create(server->target(), options);
  TestRequest t(OneMessage());
  ASSERT_TRUE(Call(client, t.request).ok());
  server.reset();
  const absl::Status status = Call(client, t.request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no time for another"));
}

INSTANTIATE_TEST_SUITE_P(NowAndLater, RetryTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Later" : "Now"; });

// Counts, and refuses the first call of each method.
class RefusingModels : public v1::ModelService::Service {
 public:
  std::atomic<int> lists{0}, gets{0}, biases{0}, loads{0}, reloads{0}, unloads{0}, uploads{0};
  static grpc::Status First(std::atomic<int>& calls) {
    return calls++ == 0 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "refused") : grpc::Status::OK;
  }
  using Context = grpc::ServerContext*;
  grpc::Status ListModels(Context, const v1::ListModelsRequest*, v1::ListModelsResponse*) override {
    return First(lists);
  }
  grpc::Status GetModel(Context, const v1::GetModelRequest*, v1::GetModelResponse*) override { return First(gets); }
  grpc::Status GetBias(Context, const v1::GetBiasRequest*, v1::GetBiasResponse*) override { return First(biases); }
  grpc::Status LoadModel(Context, const v1::LoadModelRequest*, v1::LoadModelResponse*) override { return First(loads); }
  grpc::Status ReloadModel(Context, const v1::ReloadModelRequest*, v1::ReloadModelResponse*) override {
    return First(reloads);
  }
  grpc::Status UnloadModel(Context, const v1::UnloadModelRequest*, v1::UnloadModelResponse*) override {
    return First(unloads);
  }
  grpc::Status UploadTable(Context, const v1::UploadTableRequest*, v1::UploadTableResponse*) override {
    return First(uploads);
  }
};

TEST(RetryOfModels, WhatOnlyReadsIsRepeatedAndWhatHasEffectsIsNot) {
  RefusingModels models;
  FakeServer server({&models});
  Client client = *Client::Create(server.target(), Quick());
  EXPECT_TRUE(client.ListModels().ok());
  EXPECT_TRUE(client.GetModel("m").ok());
  EXPECT_TRUE(client.GetBias({}).ok());
  for (const std::atomic<int>* calls : {&models.lists, &models.gets, &models.biases}) EXPECT_EQ(*calls, 2);
  EXPECT_EQ(client.LoadModel("path").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.ReloadModel("m").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.UnloadModel("m").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.UploadTable("m", {}).status().code(), absl::StatusCode::kUnavailable);
  for (const std::atomic<int>* calls : {&models.loads, &models.reloads, &models.unloads, &models.uploads}) {
    EXPECT_EQ(*calls, 1);
  }
}

class RefusingSessions : public v1::SessionService::Service {
 public:
  std::atomic<int> lists{0}, evictions{0};
  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest*, v1::ListSessionsResponse*) override {
    return RefusingModels::First(lists);
  }
  grpc::Status EvictSession(grpc::ServerContext*, const v1::EvictSessionRequest*, v1::EvictSessionResponse*) override {
    return RefusingModels::First(evictions);
  }
};

TEST(RetryOfSessions, AListIsRepeatedAndAnEvictionIsNot) {
  RefusingSessions sessions;
  FakeServer server({&sessions});
  Client client = *Client::Create(server.target(), Quick());
  EXPECT_TRUE(client.ListSessions().ok());
  EXPECT_EQ(sessions.lists, 2);
  EXPECT_EQ(client.EvictSession(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sessions.evictions, 1);
}

TEST(RetryOfModels, WhatHasEffectsWaitsForAConnection) {
  const std::string address = absl::StrCat("unix:/tmp/attnd-retry-", getpid(), ".sock");
  Client client = *Client::Create(address);
  RefusingModels models;
  models.unloads = 1;
  const std::vector<grpc::Service*> services{&models};
  auto server = std::make_unique<FakeServer>(services, address);
  ASSERT_TRUE(client.ListModels().ok());
  server.reset();
  CallOptions soon;
  soon.deadline = absl::Now() + absl::Milliseconds(100);
  EXPECT_FALSE(client.ListModels(soon).ok());  // after this the client knows that the connection is lost
  std::thread starter([&] {
    absl::SleepFor(absl::Milliseconds(300));
    server = std::make_unique<FakeServer>(services, address);
  });
  const absl::Status status = client.UnloadModel("m");
  starter.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(models.unloads, 2);
}

}  // namespace
}  // namespace attnd::client
