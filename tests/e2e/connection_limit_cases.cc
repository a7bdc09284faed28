#include "limit_cases.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "relay.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;

// Whether a call on a connection of its own is answered; the connection is kept in `open`.
bool Connects(const std::string& address, std::vector<std::shared_ptr<grpc::Channel>>& open) {
  open.push_back(NewChannel(address));
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  const grpc::Status status = v1::ServerService::NewStub(open.back())->GetServerInfo(&context, {}, &info);
  if (status.ok()) return true;
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE) << status.error_message();
  open.pop_back();
  return false;
}

// A call that has sent its headers and no message.
class Silent {
 public:
  explicit Silent(const std::shared_ptr<grpc::Channel>& channel) {
    call_ = grpc::GenericStub(channel).PrepareCall(&context_, "/attnd.v1.AttentionService/ComputeAttention", &queue_);
    call_->StartCall(nullptr);
    Await();
  }
  ~Silent() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) continue;
  }

 private:
  void Await() {
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
  }
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

}  // namespace

void Connections() {
  server::Options options = With(&server::Limits::max_connections, 3);
  options.limits.max_peer_connections = 10;
  TestServer server(options);
  std::vector<std::shared_ptr<grpc::Channel>> open;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Connects(server.address(), open)) << i;
  EXPECT_FALSE(Connects(server.address(), open));
  open.pop_back();
  EXPECT_TRUE(Becomes([&] { return Connects(server.address(), open); }));
  EXPECT_FALSE(Connects(server.address(), open));
}

void PeerConnections() {
  server::Options options = With(&server::Limits::max_peer_connections, 2);
  options.limits.max_connections = 100;
  TestServer server(options);
  std::vector<std::shared_ptr<grpc::Channel>> open;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Connects(server.address(), open)) << i;
  EXPECT_FALSE(Connects(server.address(), open));
  const Relay relay(server.address(), "127.0.0.2");
  EXPECT_TRUE(Connects(relay.address(), open)) << "another address";
}

void ConnectionStreams() {
  TestServer server(With(&server::Limits::max_connection_streams, 2));
  struct OpenStream {
    explicit OpenStream(TestServer& server) : stream(server.attention().StreamAttention(&context)) {
      v1::StreamAttentionRequest piece;
      piece.mutable_call()->set_model("no-such");
      v1::StreamAttentionResponse answer;
      EXPECT_TRUE(stream->Write(piece) && stream->Read(&answer));
    }
    ~OpenStream() {
      stream->WritesDone();
      EXPECT_TRUE(stream->Finish().ok());
    }
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream;
  };
  OpenStream first(server);
  auto second = std::make_unique<OpenStream>(server);
  grpc::ClientContext context;
  const v1::GetServerInfoRequest request;
  v1::GetServerInfoResponse info;
  absl::Notification done;
  grpc::Status third;
  server.info().async()->GetServerInfo(&context, &request, &info, [&](grpc::Status status) {
    third = std::move(status);
    done.Notify();
  });
  EXPECT_FALSE(done.WaitForNotificationWithTimeout(absl::Milliseconds(300))) << "two calls are open";
  second.reset();
  done.WaitForNotification();
  EXPECT_TRUE(third.ok()) << third.error_message();
}

void Reads() {
  TestServer server(With(&server::Limits::max_reads, 2));
  std::deque<Silent> calls;
  for (int i = 0; i < 5; ++i) calls.emplace_back(server.channel());
  EXPECT_TRUE(Becomes([&] { return server.server().calls_in_flight() == 5; }));
  EXPECT_TRUE(Becomes([&] { return InfoOf(server).queue().waiting() >= 3; }));
  EXPECT_EQ(InfoOf(server).queue().waiting(), 3) << "two are read";
}

}  // namespace attnd::e2e
