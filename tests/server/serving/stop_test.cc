// What a stop waits for, and what it tells to whom; server_test.cc and tests/e2e/stop_test.cc have more of it.

#include <sys/socket.h>
#include <sys/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/v1/model.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "models/stuck_log.h"
#include "pending_call.h"
#include "spdlog/spdlog.h"
#include "started_server.h"
#include "temp_folder.h"
#include "unread_call.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckResponse;

// A watch of a service's health.
class Watch {
 public:
  Watch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service)
      : stub_(grpc::health::v1::Health::NewStub(channel)) {
    context_.set_deadline(Patience());
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    reader_ = stub_->Watch(&context_, request);
  }
  // The next status; UNKNOWN once it has ended.
  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : HealthCheckResponse::UNKNOWN;
  }
  StatusCode Finish() { return reader_->Finish().error_code(); }

 private:
  const std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

// A stop on a thread of its own.
class Stopping {
 public:
  explicit Stopping(Server& server) : thread_([this, &server] { stopped_ = server.Stop(); }) {}
  ~Stopping() {
    if (thread_.joinable()) thread_.join();
  }
  Stopped Await() {
    thread_.join();
    return stopped_;
  }

 private:
  Stopped stopped_;
  std::thread thread_;
};

v1::GetBiasRequest LargeWindow() {
  v1::GetBiasRequest request;
  request.set_model("book");
  request.set_query_count(600);
  request.set_key_count(600);
  return request;
}

// Balancers turn away, and supervisors do not restart it.
TEST(StopTest, WatchersAreToldBeforeTheyAreEnded) {
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
  std::vector<std::unique_ptr<Watch>> services;
  for (const char* name : kServingNames) services.push_back(std::make_unique<Watch>(channel, name));
  services.push_back(std::make_unique<Watch>(channel, "attnd.v1.SessionService"));
  Watch liveness(channel, kLivenessName);
  for (const auto& watch : services) ASSERT_EQ(watch->Next(), HealthCheckResponse::SERVING);
  ASSERT_EQ(liveness.Next(), HealthCheckResponse::SERVING);
  Stopping stop(*server);
  for (const auto& watch : services) {
    EXPECT_EQ(watch->Next(), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(watch->Next(), HealthCheckResponse::UNKNOWN);
    EXPECT_EQ(watch->Finish(), StatusCode::UNAVAILABLE);
  }
  EXPECT_EQ(liveness.Next(), HealthCheckResponse::UNKNOWN) << "it is alive to the end";
  EXPECT_EQ(liveness.Finish(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(stop.Await().cut_off, 0) << "watches are no calls that it owes an answer";
}

// Local callers get no GOAWAY: each new call is refused, while what was accepted is answered.
TEST(StopTest, LocalCallsAreRefusedWhileItDrains) {
  const test::TempFolder folder;
  Options options = TestOptions();
  options.listen.push_back("unix:" + folder.path() + "/s");
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  const test::LocalCaller caller(folder.path() + "/s.shm");
  const timeval patience{20, 0};
  ASSERT_EQ(setsockopt(caller.raw().fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
  ASSERT_EQ(caller.Greet().code(), 0);
  constexpr int kUnavailable = static_cast<int>(StatusCode::UNAVAILABLE);
  std::uint64_t id = 1;
  ASSERT_NE(caller.Call(BookRequest(), id).code(), kUnavailable);
  UnreadStream accepted(*server);
  Stopping stop(*server);
  EXPECT_TRUE(test::Becomes([&] { return caller.Call(BookRequest(), ++id).code() == kUnavailable; }))
      << "it takes local calls while it drains";
  EXPECT_GT(server->calls_in_flight(), 0) << "refused because of the stop, and not after it";
  EXPECT_TRUE(accepted.Read());
  accepted.Finish();
  EXPECT_EQ(stop.Await().cut_off, 0);
}

// A model that is being loaded or unloaded is neither in a gate nor computed.
TEST(StopTest, WaitsForModelCallsThatRun) {
  const auto log = std::make_shared<StuckLog>();
  const std::shared_ptr<spdlog::logger> logger_before = spdlog::default_logger();
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", log));
  {
    const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
    Watch watch(channel, "");
    EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
    v1::UnloadModelRequest request;
    request.set_name("no-such");
    test::PendingCall call(channel, "/attnd.v1.ModelService/UnloadModel", request.SerializeAsString());
    EXPECT_TRUE(log->AwaitWriters(1));
    EXPECT_EQ(server->calls_in_flight(), 0);
    Stopping stop(*server);
    EXPECT_EQ(watch.Next(), HealthCheckResponse::NOT_SERVING);
    absl::SleepFor(absl::Seconds(2));  // longer than a stop that has nothing to wait for
    EXPECT_FALSE(call.done());
    log->Go();
    EXPECT_EQ(call.Code(), StatusCode::NOT_FOUND) << "it is answered";
    EXPECT_EQ(stop.Await().cut_off, 0);
  }
  spdlog::set_default_logger(logger_before);
}

// Its call has been computed, but its caller has not got it.
TEST(StopTest, AnAnswerThatIsNotTakenInTimeIsCutOff) {
  Options options = TestOptions();
  options.drain = absl::Milliseconds(300);
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  const test::UnreadCall unread(server->addresses()[0], "/attnd.v1.ModelService/GetBias",
                                LargeWindow().SerializeAsString());
  ASSERT_TRUE(unread.sent());
  EXPECT_TRUE(test::Becomes([&] { return server->inflight_bytes() > (1 << 20); }));
  EXPECT_EQ(server->calls_in_flight(), 0);
  Stopped stopped;
  ASSERT_TRUE(test::Ends([&] { stopped = server->Stop(); }));
  EXPECT_EQ(stopped.cut_off, 1);
  EXPECT_TRUE(test::Becomes([&] { return server->inflight_bytes() == 0; })) << server->inflight_bytes();
}

// With hours to drain, what nobody waits for does not hold it up.
TEST(StopTest, IdleConnectionsAndStreamsHoldNothingUp) {
  Options options = TestOptions();
  options.drain = absl::Hours(24);
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
  EXPECT_EQ(Compute(channel), StatusCode::OK);
  Watch watch(channel, "");
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
  Stopped stopped;
  ASSERT_TRUE(test::Ends([&] { stopped = server->Stop(); }));
  EXPECT_EQ(stopped.cut_off, 0);
  EXPECT_EQ(stopped.not_begun, 0);
}

// The flags that are about callers, in a server: a peer's connections, and answers that are not read.
TEST(ServerLimitsTest, OfConnections) {
  Options options = TestOptions();
  options.limits.max_connections = 10;
  options.limits.max_peer_connections = 2;
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  const auto connects = [&] {
    const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
    const StatusCode code = Compute(channel);
    return std::pair(channel, code);
  };
  const auto first = connects(), second = connects(), third = connects();
  EXPECT_EQ(first.second, StatusCode::OK);
  EXPECT_EQ(second.second, StatusCode::OK);
  EXPECT_EQ(third.second, StatusCode::UNAVAILABLE) << "it is one too many";
}

TEST(ServerLimitsTest, OfAnswersThatAreNotRead) {
  Options options = TestOptions();
  options.stall = absl::Milliseconds(50);
  options.min_rate = std::int64_t{1} << 40;
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  const test::UnreadCall unread(server->addresses()[0], "/attnd.v1.ModelService/GetBias",
                                LargeWindow().SerializeAsString());
  ASSERT_TRUE(unread.sent());
  EXPECT_TRUE(test::Becomes([&] { return server->counters().stalled_writes.load() == 1; }));
  EXPECT_TRUE(test::Becomes([&] { return server->inflight_bytes() == 0; })) << server->inflight_bytes();
}

}  // namespace
}  // namespace attnd::server
