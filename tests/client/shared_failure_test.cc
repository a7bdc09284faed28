// Calls with tensors in shared memory that fail in each way: the block of a failed call is not another call's while the
// server may still write to it, the next call's answer is its own, and what was taken is given back.
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "attnd/client.h"
#include "attnd/shm/protocol.h"
#include "bounded.h"
#include "fake_local_server.h"
#include "fake_server.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;

using test::Becomes;

// q, k, v and output of 16 KiB each: too large to be sent, and for both transports.
constexpr Sizes kSizes = {1, 1, 1, 64, 64, 64, 64};

// How a call is made.
struct Way {
  const char* name;
  bool local, later;
};
constexpr Way kWays[] = {
    {"LocalNow", true, false}, {"LocalLater", true, true}, {"GrpcNow", false, false}, {"GrpcLater", false, true}};

enum class Ending { kLate, kCancelled, kError, kLost };
constexpr Ending kEndings[] = {Ending::kLate, Ending::kCancelled, Ending::kError, Ending::kLost};

class SharedFailureTest : public testing::TestWithParam<Way> {
 protected:
  SharedFailureTest() {
    local_.shares_memory = true;
    options_.retry.enabled = false;
    options_.local_calls = GetParam().local;
    local_.OnCall([this](const Peer& peer, const v1::LocalRequest& request) {
      v1::LocalReply reply;
      reply.mutable_answer()->set_id(request.call().id());
      const std::optional<grpc::Status> status =
          Handle(request.call().request(), *reply.mutable_answer()->mutable_result());
      if (!status.has_value()) return ending_ != Ending::kLost;
      if (!status->ok()) {
        reply.mutable_answer()->clear_result();
        reply.mutable_answer()->set_code(status->error_code());
      }
      return FakeLocalServer::Send(peer, reply.SerializeAsString());
    });
    attention_.handler = [this](grpc::ServerContext* context, const v1::ComputeAttentionRequest& request,
                                v1::ComputeAttentionResponse& response) {
      if (const std::optional<grpc::Status> status = Handle(request, response)) return *status;
      if (ending_ == Ending::kLost) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "lost");
      EXPECT_TRUE(Becomes([&] { return context->IsCancelled(); })) << "the call goes on at the server";
      return grpc::Status::CANCELLED;
    };
  }

  // The next call ends so.
  void Fail(Ending ending) {
    absl::MutexLock lock(&mutex_);
    ending_ = ending;
    fails_ = true;
  }
  // Makes a call, and cancels it once the server has it if it is to end so.
  absl::StatusOr<ComputeReply> Call(Client& client, const ComputeRequest& request, bool cancel = false,
                                    absl::Duration time = absl::Seconds(20)) {
    CallOptions options;
    options.deadline = absl::Now() + time;
    options.cancellation = std::make_shared<Cancellation>();
    const int before = calls_;
    std::thread canceller([&] {
      if (!cancel) return;
      EXPECT_TRUE(Becomes([&] { return calls_ > before; }));
      options.cancellation->Cancel();
    });
    auto reply = Bounded(
        [&] {
          return GetParam().later ? client.ComputeFuture(request, options).get() : client.Compute(request, options);
        },
        [&] { options.cancellation->Cancel(); });
    canceller.join();
    EXPECT_EQ(options.cancellation->calls(), 0U);
    return reply;
  }
  absl::StatusCode CallToFail(Client& client, const ComputeRequest& request, Ending ending) {
    Fail(ending);
    return Call(client, request, ending == Ending::kCancelled,
                ending == Ending::kLate ? absl::Milliseconds(100) : absl::Seconds(20))
        .status()
        .code();
  }
  std::vector<v1::ComputeAttentionRequest> seen() {
    absl::MutexLock lock(&mutex_);
    return seen_;
  }
  // What the formula gives, and whether the reply is that.
  // The call with its tensors, and the result moved to where the call has it.
  v1::LocalRequest WithTensorsOf(v1::LocalRequest request) {
    *request.mutable_call()->mutable_request() = local_.WithTensors(request.call().request());
    return request;
  }
  void Place(const v1::ComputeAttentionRequest& request, v1::ComputeAttentionResponse& result) {
    local_.PlaceResults(request, *result.mutable_output(), *result.mutable_log_sum_exp());
    if (result.output().empty()) result.clear_output();
    if (result.log_sum_exp().empty()) result.clear_log_sum_exp();
  }
  static void ExpectRight(const absl::StatusOr<ComputeReply>& reply, const TestRequest& t,
                          const std::vector<float>& output) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, GetParam().local ? Transport::kLocal : Transport::kSharedMemory);
    FakeAttention plain;
    FakeServer server({&plain});
    const absl::StatusOr<ComputeReply> expected = Client::Create(server.target())->Compute(t.request);
    ASSERT_TRUE(expected.ok()) << expected.status();
    const void* got = output.empty() ? reply->output.data() : output.data();
    EXPECT_EQ(std::memcmp(got, expected->output.data(), expected->output.size_bytes()), 0);
  }

  const test::TempFolder folder_;
  ClientOptions options_;
  absl::Mutex mutex_;
  std::vector<v1::ComputeAttentionRequest> seen_ ABSL_GUARDED_BY(mutex_);
  std::vector<unsigned char*> outputs_ ABSL_GUARDED_BY(mutex_);
  bool fails_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<Ending> ending_{Ending::kLate};
  std::atomic<int> calls_{0};
  FakeAttention attention_;
  FakeServer server_{{&attention_}, "unix:" + folder_.path() + "/s"};
  FakeLocalServer local_{folder_.path() + "/s" + shm::kSocketSuffix};

 private:
  // Answers, or returns nullopt for a call that is to get no answer. Before each answer, writes to where the results of
  // all earlier calls would have been.
  std::optional<grpc::Status> Handle(const v1::ComputeAttentionRequest& request, v1::ComputeAttentionResponse& result) {
    EXPECT_TRUE(request.has_q_shared() && request.has_k_shared() && request.has_v_shared() &&
                request.has_output_shared());
    absl::MutexLock lock(&mutex_);
    seen_.push_back(request);
    const std::size_t size =
        static_cast<std::size_t>(request.query_length() * request.value_head_dim()) * sizeof(float);
    unsigned char* const output = local_.SharedData(request.output_shared(), size);
    outputs_.push_back(output);
    ++calls_;
    if (std::exchange(fails_, false)) {
      if (ending_ == Ending::kError) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
      return std::nullopt;
    }
    std::string values, log_sum_exp;
    PlainAttention(local_.WithTensors(request), values, log_sum_exp);
    local_.PlaceResults(request, values, log_sum_exp);
    for (std::size_t i = 0; i + 1 < outputs_.size(); ++i) {
      if (late_writes_ && outputs_[i] != nullptr) std::memset(outputs_[i], 0xff, size);
    }
    result.set_dtype(v1::DTYPE_FP32);
    result.set_version(7);
    return grpc::Status::OK;
  }

 protected:
  std::atomic<bool> late_writes_{true};
};

TEST_P(SharedFailureTest, ABlockOfAFailedCallIsNotTheNextCalls) {
  constexpr absl::StatusCode kCodes[] = {absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled,
                                         absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable};
  Client client = *Client::Create("unix:" + folder_.path() + "/s", options_);
  for (const Ending ending : kEndings) {
    SCOPED_TRACE(static_cast<int>(ending));
    {
      absl::MutexLock lock(&mutex_);
      seen_.clear();
      outputs_.clear();
    }
    const int released = local_.released, registered = local_.registered;
    TestRequest t(kSizes);
    EXPECT_EQ(CallToFail(client, t.request, ending), kCodes[static_cast<int>(ending)]);
    // Another result, so that the earlier one would show.
    TestRequest other(kSizes);
    other.v.swap(other.q);
    ExpectRight(Call(client, other.request), other, {});
    late_writes_ = false;
    ExpectRight(Call(client, other.request), other, {});
    late_writes_ = true;
    const std::vector<v1::ComputeAttentionRequest> calls = seen();
    ASSERT_EQ(calls.size(), 3U);
    EXPECT_NE(calls[0].output_shared().region(), calls[1].output_shared().region());
    EXPECT_EQ(calls[1].output_shared().region(), calls[2].output_shared().region()) << "a block is used again";
    EXPECT_EQ(local_.registered, registered + (ending == kEndings[0] ? 2 : 1)) << "the first call has no block yet";
    ASSERT_TRUE(Becomes([&] { return local_.released == released + 1; })) << "the failed call's block";
  }
}

// A future that finds no room at the local socket goes over gRPC, with the block that it has.
TEST_P(SharedFailureTest, ACallThatFindsNoRoomKeepsNoBlock) {
  if (!GetParam().local || !GetParam().later) GTEST_SKIP() << "of futures over the local socket";
  local_.OnHello([](const Peer& peer, const v1::LocalRequest&) {
    v1::LocalWelcome welcome;
    welcome.set_max_calls(1);
    return FakeLocalServer::Welcome(peer, welcome);
  });
  Client client = *Client::Create("unix:" + folder_.path() + "/s", options_);
  TestRequest t(kSizes);
  Fail(Ending::kLate);  // one call that stays
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  auto held = client.ComputeFuture(t.request, options);
  ASSERT_TRUE(Becomes([&] { return calls_ == 1; }));
  late_writes_ = false;
  for (int i = 0; i < 4; ++i) {
    const absl::StatusOr<ComputeReply> reply = Call(client, t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->transport, Transport::kSharedMemory);
  }
  EXPECT_EQ(local_.registered, 2) << "the held call's block, and one for all others";
  options.cancellation->Cancel();
  EXPECT_EQ(Get(held).status().code(), absl::StatusCode::kCancelled);
}

// The server writes into the caller's own regions, each named with its offset.
TEST_P(SharedFailureTest, EachTensorHasARegionOfItsOwn) {
  Client client = *Client::Create("unix:" + folder_.path() + "/s", options_);
  TestRequest t(kSizes);
  constexpr std::size_t kBytes = 64 * 64 * sizeof(float);
  std::vector<SharedBuffer> buffers;
  for (int i = 0; i < 4; ++i) buffers.push_back(*client.AllocateBuffer(kBytes + 4096));
  const auto at = [&](std::size_t i) { return static_cast<unsigned char*>(buffers[i].data()) + 64 * (i + 1); };
  TensorView* const tensors[] = {&t.request.q, &t.request.k, &t.request.v};
  for (std::size_t i = 0; i < 3; ++i) {
    std::memcpy(at(i), tensors[i]->data, kBytes);
    tensors[i]->data = at(i);
  }
  t.request.output = {at(3), kBytes};
  late_writes_ = false;  // both calls have one place for their output
  for (int i = 0; i < 2; ++i) {
    std::memset(at(3), 0, kBytes);
    const absl::StatusOr<ComputeReply> reply = Call(client, t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    std::vector<float> output(kBytes / sizeof(float));
    std::memcpy(output.data(), at(3), kBytes);
    TestRequest same(kSizes);
    ExpectRight(reply, same, output);
  }
  const v1::ComputeAttentionRequest call = seen().front();
  const v1::SharedTensor* const places[] = {&call.q_shared(), &call.k_shared(), &call.v_shared(),
                                            &call.output_shared()};
  std::set<std::string> regions;
  for (std::size_t i = 0; i < 4; ++i) {
    regions.insert(places[i]->region());
    EXPECT_EQ(places[i]->offset(), 64 * (i + 1));
  }
  EXPECT_EQ(regions.size(), 4U);
  EXPECT_EQ(local_.registered, 4);
}

// A region that the server does not know any more is registered again, and the call repeated: once, not for ever.
TEST_P(SharedFailureTest, ALostRegionIsRegisteredAgain) {
  for (const bool for_ever : {false, true}) {
    {
      absl::MutexLock lock(&mutex_);
      seen_.clear();
    }
    const int registered = local_.registered;
    std::atomic<int> lost{0};
    std::string lost_region;  // of calls, which come one after another
    const auto loses = [&](const v1::ComputeAttentionRequest& request) {
      if (!request.has_q_shared()) return false;
      if (lost == 0) lost_region = request.q_shared().region();
      return for_ever || request.q_shared().region() == lost_region;
    };
    v1::ErrorDetail detail;
    detail.set_field("q_shared.region");
    const FakeLocalServer::Handler handler = [&](const Peer& peer, const v1::LocalRequest& request) {
      v1::LocalReply reply = FakeLocalServer::ResultOf(WithTensorsOf(request));
      if (loses(request.call().request())) {
        ++lost;
        reply.mutable_answer()->clear_result();
        reply.mutable_answer()->set_code(9);
        *reply.mutable_answer()->mutable_detail() = detail;
      } else {
        Place(request.call().request(), *reply.mutable_answer()->mutable_result());
      }
      return FakeLocalServer::Send(peer, reply.SerializeAsString());
    };
    local_.OnCall(handler);
    attention_.handler = [&](grpc::ServerContext*, const v1::ComputeAttentionRequest& request,
                             v1::ComputeAttentionResponse& response) {
      if (loses(request)) {
        ++lost;
        // google.rpc.Status {code = 1, details = 3 {type_url = 1, value = 2}}
        const std::string value = detail.SerializeAsString(), url = "type.googleapis.com/attnd.v1.ErrorDetail";
        const std::string any = "\x0a" + std::string(1, static_cast<char>(url.size())) + url + "\x12" +
                                std::string(1, static_cast<char>(value.size())) + value;
        return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "lost",
                            std::string("\x08\x09\x1a", 3) + static_cast<char>(any.size()) + any);
      }
      std::string log_sum_exp;
      PlainAttention(local_.WithTensors(request), *response.mutable_output(), log_sum_exp);
      response.set_dtype(v1::DTYPE_FP32);
      Place(request, response);
      return grpc::Status::OK;
    };
    Client client = *Client::Create("unix:" + folder_.path() + "/s", options_);
    TestRequest t(kSizes);
    // In a region of the caller's, which stays.
    const SharedBuffer q = *client.AllocateBuffer(t.q.size() * sizeof(float));
    std::memcpy(q.data(), t.q.data(), q.size());
    t.request.q.data = q.data();
    const absl::StatusOr<ComputeReply> reply = Call(client, t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(lost, for_ever ? 2 : 1);
    if (for_ever) {
      EXPECT_EQ(reply->transport, Transport::kGrpc) << "as one message in the end";
    } else {
      ExpectRight(reply, t, {});
    }
    EXPECT_EQ(local_.registered, registered + 4) << "q's region and a block, twice";
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, SharedFailureTest, testing::ValuesIn(kWays),
                         [](const auto& run) { return run.param.name; });

}  // namespace
}  // namespace attnd::client
