// Who may touch the caller's memory, and until when: deadlines, cancellations, and a peer that stops reading.
#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "attnd/client.h"
#include "bounded.h"
#include "fake_server.h"
#include "test_request.h"
#include "wait.h"

namespace attnd::client {
namespace {

// A server whose handler waits until it is told to go on.
class HeldServer {
 public:
  HeldServer() : server_({&service_}) {
    service_.handler = [this](grpc::ServerContext*, const v1::ComputeAttentionRequest&, v1::ComputeAttentionResponse&) {
      entered.Notify();
      EXPECT_TRUE(test::Comes(go_on));
      return grpc::Status(grpc::StatusCode::ABORTED, "went on");
    };
  }
  std::string target() const { return server_.target(); }
  absl::Notification entered, go_on;

 private:
  FakeAttention service_;
  FakeServer server_;
};

CallOptions DeadlineIn(absl::Duration d) {
  CallOptions options;
  options.deadline = absl::Now() + d;
  return options;
}

TEST(Deadline, EndsACallThatIsBeingComputed) {
  HeldServer server;
  Client client = *Client::Create(server.target());
  {
    TestRequest t(Large());
    EXPECT_EQ(client.Compute(t.request, DeadlineIn(absl::Milliseconds(300))).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  }  // frees the tensors while the server still has the call
  server.go_on.Notify();
}

TEST(Cancellation, EndsEveryCallThatCarriesIt) {
  HeldServer server;
  Client client = *Client::Create(server.target());
  CallOptions options;
  options.cancellation = std::make_shared<attnd::Cancellation>();
  {
    TestRequest t(Large());
    auto future = client.ComputeFuture(t.request, options);
    EXPECT_TRUE(test::Comes(server.entered));
    options.cancellation->Cancel();
    EXPECT_EQ(Get(future).status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(client.Compute(t.request, options).status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(client.GetServerInfo(options).status().code(), absl::StatusCode::kCancelled);
  }
  server.go_on.Notify();
}

TEST(Cancellation, MayComeFromAnotherThreadAtAnyTime) {
  FakeAttention service;
  FakeServer server({&service});
  Client client = *Client::Create(server.target());
  TestRequest t(Sizes{1, 2, 2, 64, 64, 16, 16});
  for (int round = 0; round < 50; ++round) {
    CallOptions options;
    options.cancellation = std::make_shared<attnd::Cancellation>();
    std::thread canceller([&] { options.cancellation->Cancel(); });
    const absl::Status status = client.Compute(t.request, options).status();
    canceller.join();
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kCancelled) << status;
  }
}

TEST(Client, MayGoBeforeItsCallsEnd) {
  HeldServer server;
  TestRequest t(Large());
  std::future<absl::StatusOr<ComputeReply>> future;
  {
    Client client = *Client::Create(server.target());
    future = client.ComputeFuture(t.request);
  }
  server.go_on.Notify();
  EXPECT_EQ(Get(future).status().code(), absl::StatusCode::kAborted);
}

TEST(Client, MayGoInItsLastCallback) {
  FakeAttention service;
  FakeServer server({&service});
  TestRequest t(Large());
  auto client = std::make_unique<Client>(*Client::Create(server.target()));
  Client* const borrowed = client.get();
  absl::Notification done;
  borrowed->ComputeAsync(t.request, {},
                         [&, held = std::make_shared<std::unique_ptr<Client>>(std::move(client))](
                             const absl::StatusOr<ComputeReply>& reply) {
                           EXPECT_TRUE(reply.ok()) << reply.status();
                           held->reset();
                           done.Notify();
                         });
  EXPECT_TRUE(test::Comes(done));
}

TEST(Client, RefusesAtOnceWhenNobodyEverListenedAndWaitsIfAsked) {
  Client client = *Client::Create("unix:///nonexistent/attnd.sock");
  TestRequest t(Large());
  const absl::Status refused = client.Compute(t.request).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(refused.message().find("attempt"), std::string::npos) << refused;
  EXPECT_EQ(client.UnloadModel("m").code(), absl::StatusCode::kUnavailable);
  CallOptions options = DeadlineIn(absl::Milliseconds(100));
  options.wait_for_ready = true;
  EXPECT_EQ(client.Compute(t.request, options).status().code(), absl::StatusCode::kDeadlineExceeded);
}

// An HTTP/2 peer that allows any amount of data, reads a mebibyte, and then no more, so that the client's bytes stay in
// its hands.
class DeafPeer {
 public:
  DeafPeer() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    const int small = 4096;
    setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~DeafPeer() {
    shutdown(listener_, SHUT_RDWR);  // wakes accept
    if (thread_.joinable()) HangUp();
    close(listener_);
  }
  std::string target() const { return absl::StrCat("127.0.0.1:", port_); }

  // Set once it reads no more.
  absl::Notification deaf;

  // Drops the connection.
  void HangUp() {
    thread_.join();
    close(connection_);
  }

 private:
  void Serve() {
    connection_ = accept(listener_, nullptr, nullptr);
    // SETTINGS with INITIAL_WINDOW_SIZE (4) = 2^31 - 1; WINDOW_UPDATE of the connection by 2^31 - 1 - 65535 (RFC 9113).
    constexpr std::array<unsigned char, 28> kFrames = {0,    0, 6, 4, 0, 0, 0, 0, 0, 0, 4,    0x7f, 0xff, 0xff,
                                                       0xff, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0,    0};
    EXPECT_EQ(write(connection_, kFrames.data(), kFrames.size()), static_cast<ssize_t>(kFrames.size()));
    std::vector<char> read_bytes(std::size_t{1} << 20);
    EXPECT_EQ(recv(connection_, read_bytes.data(), read_bytes.size(), MSG_WAITALL),
              static_cast<ssize_t>(read_bytes.size()));
    deaf.Notify();
  }

  int listener_;
  int connection_ = -1;
  int port_ = 0;
  std::thread thread_;
};

// 64 MiB of q: more than all buffers of a loopback connection.
Sizes MoreThanSocketsHold() { return {1, 1, 1, 262144, 1, 64, 1}; }

// A call whose bytes are being written to a peer that does not read, cancelled.
class CancelledInWriting {
 public:
  explicit CancelledInWriting(const ClientOptions& options = {})
      : t_(std::make_unique<TestRequest>(MoreThanSocketsHold())), client_(*Client::Create(peer.target(), options)) {
    CallOptions call;
    call.cancellation = std::make_shared<attnd::Cancellation>();
    future = client_.ComputeFuture(t_->request, call);
    EXPECT_TRUE(test::Comes(peer.deaf));
    call.cancellation->Cancel();
  }
  void FreeMemory() { t_.reset(); }

  DeafPeer peer;
  std::future<absl::StatusOr<ComputeReply>> future;

 private:
  std::unique_ptr<TestRequest> t_;
  Client client_;
};

// Neither a future nor Compute ends while the connection may still write from the memory: AddressSanitizer would see
// it.
TEST(BorrowedMemory, IsLetGoBeforeItsCallEnds) {
  CancelledInWriting call;
  EXPECT_EQ(call.future.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
  call.peer.HangUp();
  EXPECT_EQ(Get(call.future).status().code(), absl::StatusCode::kCancelled);
  call.FreeMemory();
}

TEST(BorrowedMemory, IsLetGoBeforeComputeReturns) {
  DeafPeer peer;
  ClientOptions options;
  options.retry.enabled = false;
  Client client = *Client::Create(peer.target(), options);
  CallOptions call;
  call.cancellation = std::make_shared<attnd::Cancellation>();
  TestRequest t(MoreThanSocketsHold());
  auto status = std::async(std::launch::async, [&] { return client.Compute(t.request, call).status(); });
  EXPECT_TRUE(test::Comes(peer.deaf));
  call.cancellation->Cancel();
  EXPECT_EQ(status.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
  peer.HangUp();
  EXPECT_EQ(status.get().code(), absl::StatusCode::kCancelled);
}

TEST(BorrowedMemory, ComesBackWhenTheConnectionIsGivenUp) {
  ClientOptions options;
  options.keepalive_timeout = absl::Seconds(1);
  CancelledInWriting call(options);
  EXPECT_EQ(Get(call.future).status().code(), absl::StatusCode::kCancelled);
  call.FreeMemory();
}

TEST(OwnedMemory, LivesAsLongAsItIsNeeded) {
  HeldServer server;
  Client client = *Client::Create(server.target());
  absl::Notification freed;
  std::future<absl::StatusOr<ComputeReply>> future;
  {
    auto t = std::make_shared<TestRequest>(Large());
    ComputeRequest request = t->request;
    const std::shared_ptr<const void> owner(nullptr, [t, &freed](std::nullptr_t) mutable {
      t.reset();
      freed.Notify();
    });
    request.q.owner = request.k.owner = request.v.owner = std::shared_ptr<const void>(owner, t.get());
    future = client.ComputeFuture(std::move(request));
  }
  EXPECT_TRUE(test::Comes(server.entered));
  EXPECT_FALSE(freed.HasBeenNotified());
  server.go_on.Notify();
  EXPECT_EQ(Get(future).status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(test::Comes(freed));
}

}  // namespace
}  // namespace attnd::client
