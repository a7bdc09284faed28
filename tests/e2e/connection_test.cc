// Connections: what each side asks of the other while nothing is sent, and their age. Intervals are scaled down to the
// second that gRPC's clients keep between pings; scripts/keepalive.sh has the real ones.

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attnd/client.h"
#include "e2e_support.h"
#include "gtest/gtest.h"
#include "relay.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

// For what must happen, and sooner.
constexpr absl::Duration kPatience = absl::Seconds(80);
// By default gRPC's client stops after two pings without data, and its server disconnects at the third ping too many.
constexpr int kSeveralPings = 5;

[[nodiscard]] bool AwaitPings(const Relay& relay, int count) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (relay.pings() < count && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(10));
  return relay.pings() >= count;
}

// Answers no call until it is destroyed, and allows pings as attnd does.
class MuteServer {
 public:
  MuteServer() {
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~MuteServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  void AwaitCall() const {
    EXPECT_TRUE(test::Becomes([this] { return service_.called.load(); }));
  }

 private:
  struct Service : v1::ServerService::CallbackService {
    class Reactor final : public grpc::ServerUnaryReactor {
     public:
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override { delete this; }
    };
    grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext*, const v1::GetServerInfoRequest*,
                                            v1::GetServerInfoResponse*) override {
      called = true;
      return new Reactor;
    }
    std::atomic<bool> called{false};
  };

  int port_ = 0;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

// How a call that waits ends: by the time limit if nobody notices that its peer is silent.
absl::Status CallThrough(const Relay& relay) {
  ClientOptions options;
  options.keepalive_time = absl::Seconds(1);
  options.keepalive_timeout = absl::Seconds(1);
  CallOptions call;
  call.deadline = absl::Now() + kPatience;
  return Client::Create(relay.address(), options)->GetServerInfo(call).status();
}

TEST(ConnectionTest, APeerThatFallsSilentEarlyIsNoticed) {
  MuteServer server;
  Relay relay(server.address());
  absl::Status status;
  std::thread call([&] { status = CallThrough(relay); });
  server.AwaitCall();
  relay.FallSilent();
  call.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST(ConnectionTest, APeerThatFallsSilentLateIsNoticed) {
  MuteServer server;
  Relay relay(server.address());
  absl::Status status;
  std::thread call([&] { status = CallThrough(relay); });
  EXPECT_TRUE(AwaitPings(relay, kSeveralPings));
  relay.FallSilent();
  call.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

std::shared_ptr<grpc::Channel> PingingChannel(const std::string& address, bool without_calls) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 100000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, without_calls ? 1 : 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

TEST(ConnectionTest, PingsOfAQuietStreamAreAllowed) {
  TestServer server;
  Relay relay(server.address());
  const auto stub = v1::AttentionService::NewStub(PingingChannel(relay.address(), false));
  grpc::ClientContext context;
  const auto stream = stub->StreamAttention(&context);
  ASSERT_TRUE(AwaitPings(relay, kSeveralPings));
  v1::StreamAttentionRequest piece;
  piece.set_id(1);
  piece.mutable_call()->set_model("no-such");  // an answer all the same
  ASSERT_TRUE(stream->Write(piece));
  v1::StreamAttentionResponse answer;
  EXPECT_TRUE(stream->Read(&answer));
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST(ConnectionTest, PingsOfAnIdleConnectionAreAllowed) {
  TestServer server;
  Relay relay(server.address());
  const auto channel = PingingChannel(relay.address(), true);
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  grpc::CompletionQueue alive;  // has gRPC look at the connection meanwhile
  void* tag = nullptr;
  bool ok = false;
  const absl::Time deadline = absl::Now() + kPatience;
  while (relay.pings() < kSeveralPings && absl::Now() < deadline) {
    channel->NotifyOnStateChange(GRPC_CHANNEL_READY, absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)), &alive,
                                 nullptr);
    alive.Next(&tag, &ok);
  }
  EXPECT_GE(relay.pings(), kSeveralPings);
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  EXPECT_EQ(relay.connections(), 1);
}

// The negative control of both: a server that allows no such pings.
TEST(ConnectionTest, PingsBelowTheMinimumEndTheConnection) {
  server::Options options = TestOptions();
  options.min_ping_interval = absl::Minutes(5);
  TestServer server(options);
  const auto stub = v1::AttentionService::NewStub(PingingChannel(server.address(), false));
  grpc::ClientContext context;
  const auto stream = stub->StreamAttention(&context);
  v1::StreamAttentionResponse answer;
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ConnectionTest, AClientThatFallsSilentIsNoticed) {
  server::Options options = TestOptions();
  options.keepalive_time = absl::Seconds(1);
  options.keepalive_timeout = absl::Seconds(1);
  TestServer server(options);
  Relay relay(server.address());
  const auto channel = NewChannel(relay.address());
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  relay.FallSilent();
  const absl::Time deadline = absl::Now() + kPatience;
  while (!relay.ServerHungUp() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(relay.ServerHungUp());
}

// As if it were stopped: the client connects anew with its next call, which does not fail. Pings are no use of it.
TEST(ConnectionTest, AConnectionWithoutCallsIsClosed) {
  server::Options options = TestOptions();
  options.max_connection_idle = absl::Milliseconds(1500);
  TestServer server(options);
  Relay relay(server.address());
  const auto channel = PingingChannel(relay.address(), true);
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  {
    // A quiet stream is a call: beside it the connection stays.
    const auto stub = v1::AttentionService::NewStub(channel);
    grpc::ClientContext context;
    const auto stream = stub->StreamAttention(&context);
    EXPECT_FALSE(channel->WaitForStateChange(GRPC_CHANNEL_READY, absl::ToChronoTime(absl::Now() + absl::Seconds(3))));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  EXPECT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_READY, absl::ToChronoTime(absl::Now() + kPatience)));
  EXPECT_GE(relay.pings(), 1) << "which kept nothing open";
  EXPECT_EQ(HealthOf(channel, ""), Health::kServing);
  EXPECT_EQ(relay.connections(), 2);
}

// What connects and does not speak HTTP/2 has nothing of the server for long. Its negative control speaks.
TEST(ConnectionTest, AConnectionThatSaysNothingIsClosed) {
  server::Options options = TestOptions();
  options.handshake_time = absl::Milliseconds(500);
  TestServer server(options);
  const int silent = ConnectTo(server.address()), speaks = ConnectTo(server.address());
  ASSERT_GE(silent, 0);
  ASSERT_GE(speaks, 0);
  const std::string settings("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
  ASSERT_EQ(send(speaks, settings.data(), settings.size(), MSG_NOSIGNAL), static_cast<ssize_t>(settings.size()));
  std::array<char, 4096> bytes;
  ssize_t got = 0;
  do {
    got = recv(silent, bytes.data(), bytes.size(), 0);
  } while (got > 0);
  EXPECT_EQ(got, 0) << "it is not closed: errno " << errno;
  close(silent);
  do {
    got = recv(speaks, bytes.data(), bytes.size(), MSG_DONTWAIT);
  } while (got > 0);
  EXPECT_EQ(got, -1) << "it is open";
  close(speaks);
}

// Clients call without pause while their connections are renewed.
TEST(ConnectionTest, RenewedConnectionsLoseNoCall) {
  server::Options options = TestOptions();
  options.max_connection_age = absl::Milliseconds(100);
  TestServer server(options);
  Relay ours(server.address());
  Relay bare(server.address());
  constexpr int kConnections = 10;
  Client client = *Client::Create(ours.address());
  int calls = 0;
  const absl::Time end = absl::Now() + kPatience / 4;
  while (ours.connections() < kConnections) {
    ASSERT_LT(absl::Now(), end) << ours.connections() << " connections";
    const auto info = client.GetServerInfo();
    ASSERT_TRUE(info.ok()) << info.status() << " after " << calls << " calls";
    ++calls;
  }
  const auto channel = NewChannel(bare.address());
  const auto stub = v1::AttentionService::NewStub(channel);
  const v1::ComputeAttentionRequest request = ValidRequest();
  calls = 0;
  while (bare.connections() < kConnections) {
    ASSERT_LT(absl::Now(), end) << bare.connections() << " connections";
    grpc::ClientContext context;
    v1::ComputeAttentionResponse response;
    const grpc::Status status = stub->ComputeAttention(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message() << " after " << calls << " calls";
    ++calls;
  }
}

}  // namespace
}  // namespace attnd::e2e
