// Peers share the server's memory: one that holds much leaves room for the others, and whatever way a call ends, what
// it held comes back.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "relay.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::chrono::seconds kPatience{60};
constexpr char kCompute[] = "/attnd.v1.AttentionService/ComputeAttention";
constexpr char kGetBias[] = "/attnd.v1.ModelService/GetBias";

bool Becomes(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

// A request of 80 KiB whose result takes a MiB.
v1::ComputeAttentionRequest Wide() {
  v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 4096, .key_length = 1, .head_dim = 1});
  request.set_value_head_dim(32);
  request.set_v(RandomFloats(kHeads * 32, 1));
  return request;
}

v1::GetBiasRequest Window() {
  v1::GetBiasRequest request;
  request.set_model(kModel);
  request.set_query_count(256);
  request.set_key_count(256);
  return request;
}

// Calls whose answers are never read: a client's window for a stream grows no further than this while nobody reads.
class Unread {
 public:
  explicit Unread(const std::string& address) : stub_(Channel(address)) {}
  ~Unread() {
    Cancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) continue;
  }

  void Call(const char* method, const google::protobuf::Message& message, const std::string& forwarded_for = "") {
    calls_.push_back(std::make_unique<One>());
    One& call = *calls_.back();
    if (!forwarded_for.empty()) call.context.AddMetadata("x-forwarded-for", forwarded_for);
    call.stream = stub_.PrepareCall(&call.context, method, &queue_);
    Do([&](void* tag) { call.stream->StartCall(tag); });
    const grpc::Slice slice(message.SerializeAsString());
    const grpc::ByteBuffer bytes(&slice, 1);
    Do([&](void* tag) { call.stream->Write(bytes, tag); });
    Do([&](void* tag) { call.stream->WritesDone(tag); });
  }

  void Cancel() {
    for (const auto& call : calls_) {
      call->context.TryCancel();
      if (call->finishing) continue;
      call->finishing = true;
      call->stream->Finish(&call->status, call.get());
    }
  }

 private:
  struct One {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
    grpc::Status status;
    bool finishing = false;
  };

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return NewChannel(address, arguments);
  }

  void Do(const std::function<void(void*)>& operation) {
    operation(this);
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
  }

  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::vector<std::unique_ptr<One>> calls_;
};

server::Options SmallMemory() {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 48 * kMiB;
  options.limits.max_request_bytes = options.limits.max_result_bytes = 16 * kMiB;
  return options;
}

// A server, and a client that calls it from another address than the tests' own: 127.0.0.2.
class LedgerTest : public testing::Test {
 protected:
  void Start(const server::Options& options) {
    server_ = std::make_unique<TestServer>(options);
    relay_ = std::make_unique<Relay>(server_->address(), "127.0.0.2");
    channel_ = NewChannel(relay_->address());
    attention_ = v1::AttentionService::NewStub(channel_);
  }

  server::Server& server() { return server_->server(); }

  // A call of the other client.
  grpc::Status Other(const v1::ComputeAttentionRequest& request) {
    grpc::ClientContext context;
    v1::ComputeAttentionResponse response;
    return attention_->ComputeAttention(&context, request, &response);
  }

  // Waits until all calls that were accepted hold their answers, and returns what is held.
  std::int64_t AwaitHeld(std::int64_t at_least) {
    EXPECT_TRUE(Becomes([&] { return server().ledger().used_bytes() >= at_least && server().calls_in_flight() == 0; }))
        << server().ledger().used_bytes();
    return server().ledger().used_bytes();
  }

  void ExpectNothingHeld() {
    EXPECT_TRUE(Becomes([&] { return server().ledger().used_bytes() == 0; })) << server().ledger().used_bytes();
    EXPECT_EQ(server().ledger().GetUsage().peers, 0);
  }

  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Relay> relay_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::AttentionService::Stub> attention_;
};

TEST_F(LedgerTest, APeerThatNeverReadsLeavesRoomForAnother) {
  Start(SmallMemory());
  Unread unread(server_->address());
  for (int i = 0; i < 45; ++i) unread.Call(kCompute, Wide());
  const std::int64_t held = AwaitHeld(22 * kMiB);
  EXPECT_LE(held, 24 * kMiB) << "half";
  for (int i = 0; i < 50; ++i) {
    const grpc::Status status = Other(Wide());
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  // The same peer is refused, and told when to come back.
  v1::ComputeAttentionResponse response;
  v1::ComputeAttentionRequest large = Wide();
  const grpc::Status refused = server_->Compute(large, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("bytes for one peer while"));
  EXPECT_TRUE(DetailOf(refused).has_retry_delay());
  EXPECT_THAT(refused.error_details(), HasSubstr("google.rpc.RetryInfo"));

  // What GetServerInfo says of it, which waits for nothing.
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server_->info().GetServerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.memory().total_bytes(), 48 * kMiB);
  EXPECT_GE(info.memory().used_bytes(), 22 * kMiB);
  EXPECT_EQ(info.memory().free_bytes(), info.memory().total_bytes() - info.memory().used_bytes());
  EXPECT_GE(info.memory().peak_bytes(), info.memory().used_bytes());
  EXPECT_GE(info.memory().peers(), 1);
  EXPECT_GE(info.memory().largest_peer_bytes(), 22 * kMiB);
  EXPECT_GT(info.memory().refused_by_share(), 0);
  EXPECT_EQ(info.memory().refused_by_total(), 0);
  EXPECT_EQ(info.memory().refused_as_never_fitting(), 0);
  unread.Cancel();
  ExpectNothingHeld();
}

// The negative control: without shares the same calls take everything.
TEST_F(LedgerTest, WithoutSharesAPeerThatNeverReadsTakesEverything) {
  server::Options options = SmallMemory();
  options.limits.max_inflight_bytes = 40 * kMiB;
  options.peer_shares = false;
  Start(options);
  Unread unread(server_->address());
  for (int i = 0; i < 45; ++i) unread.Call(kCompute, Wide());
  AwaitHeld(38 * kMiB);
  const grpc::Status refused = Other(Wide());
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("at most 41943040 bytes in flight (--max_inflight_bytes)"));
  unread.Cancel();
  ExpectNothingHeld();
}

// One ledger for all services.
TEST_F(LedgerTest, UnreadAnswersOfModelCallsCountForTheSamePeer) {
  Start(SmallMemory());
  Unread unread(server_->address());
  for (int i = 0; i < 60; ++i) unread.Call(kGetBias, Window());
  EXPECT_TRUE(Becomes([&] { return server().ledger().GetUsage().refused_by_share > 0; }));
  AwaitHeld(4 * kMiB);
  EXPECT_LE(server().ledger().GetUsage().largest_peer, 24 * kMiB);
  const grpc::Status other = Other(Wide());
  EXPECT_TRUE(other.ok()) << other.error_message();
  unread.Cancel();
  ExpectNothingHeld();
}

TEST_F(LedgerTest, BehindATrustedProxyThePeerIsWhomItNames) {
  server::Options options = SmallMemory();
  options.trusted_proxies = {"127.0.0.0/8"};
  Start(options);
  Unread unread(server_->address());
  unread.Call(kCompute, Wide(), "192.0.2.1");
  unread.Call(kCompute, Wide(), "198.51.100.1, 192.0.2.2");
  unread.Call(kCompute, Wide(), "192.0.2.1");
  AwaitHeld(3 * kMiB);
  EXPECT_EQ(server().ledger().GetUsage().peers, 2);
  unread.Cancel();
  ExpectNothingHeld();
}

TEST_F(LedgerTest, WhoIsNoTrustedProxyNamesNobody) {
  Start(SmallMemory());
  Unread unread(server_->address());
  unread.Call(kCompute, Wide(), "192.0.2.1");
  unread.Call(kCompute, Wide(), "192.0.2.2");
  AwaitHeld(2 * kMiB);
  EXPECT_EQ(server().ledger().GetUsage().peers, 1);
}

TEST_F(LedgerTest, NothingIsHeldWhateverWayCallsEnd) {
  Start(SmallMemory());
  const v1::ComputeAttentionRequest long_request =
      ValidRequest({.batch = 1, .query_length = 2048, .key_length = 2048, .head_dim = 64});
  v1::ComputeAttentionResponse response;
  v1::ComputeAttentionRequest wrong = Wide();
  wrong.set_model("no-such");
  EXPECT_EQ(server_->Compute(wrong, &response).error_code(), StatusCode::NOT_FOUND);
  v1::ComputeAttentionRequest large =
      ValidRequest({.batch = 1, .query_length = 10000, .key_length = 10000, .head_dim = 64});
  EXPECT_EQ(server_->Compute(large, &response).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext soon;
    soon.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1 + i));
    server_->attention().ComputeAttention(&soon, long_request, &response);
    grpc::ClientContext cancelled;
    std::thread canceller([&] { cancelled.TryCancel(); });
    server_->attention().ComputeAttention(&cancelled, long_request, &response);
    canceller.join();
    // A client whose connection breaks, with calls that are computed, refused and unread.
    Unread vanishes(server_->address());
    vanishes.Call(kCompute, long_request);
    vanishes.Call(kCompute, Wide());
    vanishes.Call(kGetBias, Window());
    vanishes.Call(kCompute, wrong);
  }
  ExpectNothingHeld();
  EXPECT_TRUE(server_->Compute(Wide(), &response).ok());
  ExpectNothingHeld();
}

// The client holds further calls back by itself; other connections are not concerned.
TEST_F(LedgerTest, CallsAtOnceOnOneConnectionAreBounded) {
  constexpr int kMost = 1000;
  Start(TestOptions());
  v1::ComputeAttentionResponse response;
  // Of calls that wait for their connection gRPC begins the last one first.
  ASSERT_TRUE(server_->Compute(ValidRequest(), &response).ok());
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>>>
      streams;
  for (int i = 0; i < kMost; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(server_->attention().StreamAttention(contexts.back().get()));
  }
  grpc::ClientContext waits;
  waits.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  EXPECT_EQ(server_->attention().ComputeAttention(&waits, ValidRequest(), &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Other(ValidRequest()).ok());
  contexts.front()->TryCancel();
  EXPECT_TRUE(server_->Compute(ValidRequest(), &response).ok());
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& stream : streams) stream->Finish();
}

}  // namespace
}  // namespace attnd::e2e
