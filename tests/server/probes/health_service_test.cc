#include "server/probes/health_service.h"

#include <chrono>
#include <cstddef>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "probes/probes_server.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

HealthCheckRequest Asking(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

class HealthServiceTest : public testing::Test {
 protected:
  struct Watch {
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader;

    // The next status; UNKNOWN if the watch has ended.
    HealthCheckResponse::ServingStatus Next() {
      HealthCheckResponse response;
      return reader->Read(&response) ? response.status() : HealthCheckResponse::UNKNOWN;
    }
  };

  Watch NewWatch(const std::string& service) {
    Watch watch{ProbesServer::Context(), nullptr};
    watch.reader = stub_->Watch(watch.context.get(), Asking(service));
    return watch;
  }

  grpc::Status Check(const std::string& service, HealthCheckResponse* response) {
    return stub_->Check(ProbesServer::Context().get(), Asking(service), response);
  }

  ProbesServer server_;
  const std::unique_ptr<grpc::health::v1::Health::Stub> stub_ = grpc::health::v1::Health::NewStub(server_.channel);
};

// Whatever way a watch ends, nothing is left of it: neither the watcher nor the name of a service that nobody knows.
// Comes first: a watcher that is left behind breaks what comes later in other ways.
TEST_F(HealthServiceTest, NothingIsLeftOfAWatchThatHasEnded) {
  server_.probes.SetServing(true);
  HealthService& health = server_.probes.health();
  const std::size_t known = health.use().services;
  EXPECT_EQ(known, 3U);
  const auto none_left = [&] {
    return test::Becomes([&] { return health.use().watchers == 0; }) && health.use().services == known;
  };
  for (const char* service : {"a.Service", "nobody"}) {
    SCOPED_TRACE(service);
    Watch cancelled = NewWatch(service), another = NewWatch(service);
    EXPECT_NE(cancelled.Next(), HealthCheckResponse::UNKNOWN);
    EXPECT_NE(another.Next(), HealthCheckResponse::UNKNOWN);
    EXPECT_EQ(health.use().watchers, 2U);
    cancelled.context->TryCancel();
    EXPECT_FALSE(cancelled.reader->Finish().ok());
    ASSERT_TRUE(test::Becomes([&] { return health.use().watchers == 1; }));
    EXPECT_EQ(health.use().services, known + (service[0] == 'n' ? 1 : 0)) << "another one watches it";
    another.context->TryCancel();
    EXPECT_FALSE(another.reader->Finish().ok());
    ASSERT_TRUE(none_left());

    Watch late{std::make_unique<grpc::ClientContext>(), nullptr};
    late.context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
    late.reader = stub_->Watch(late.context.get(), Asking(service));
    EXPECT_EQ(late.reader->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
    ASSERT_TRUE(none_left());
  }
  Watch refused = NewWatch(std::string(HealthService::kMaxNameBytes + 1, 'n'));
  EXPECT_FALSE(refused.reader->Finish().ok());
  ASSERT_TRUE(none_left());
  Watch to_the_end = NewWatch("nobody");
  EXPECT_EQ(to_the_end.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  ASSERT_TRUE(test::Ends([&] { server_.probes.End(absl::Hours(1)); }));
  EXPECT_EQ(to_the_end.reader->Finish().error_code(), StatusCode::UNAVAILABLE);
  ASSERT_TRUE(none_left());
}

TEST_F(HealthServiceTest, ChecksSayWhatWasSet) {
  HealthCheckResponse response;
  EXPECT_EQ(Check("", &response).error_code(), StatusCode::NOT_FOUND) << "nothing was set yet";
  for (const bool serving : {true, false, true}) {
    server_.probes.SetServing(serving);
    for (const char* service : {"", "a.Service", "another.Service"}) {
      EXPECT_TRUE(Check(service, &response).ok()) << service;
      EXPECT_EQ(response.status(), serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
    }
  }
  EXPECT_EQ(Check("nobody", &response).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(HealthServiceTest, TheListHasEveryService) {
  server_.probes.SetServing(true);
  server_.probes.health().Set("a.Service", false);
  Watch of_nobody = NewWatch("nobody");
  EXPECT_EQ(of_nobody.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  grpc::health::v1::HealthListResponse list;
  ASSERT_TRUE(stub_->List(ProbesServer::Context().get(), {}, &list).ok());
  std::vector<std::pair<std::string, int>> seen;
  for (const auto& [name, response] : list.statuses()) seen.emplace_back(name, response.status());
  EXPECT_THAT(seen, UnorderedElementsAre(Pair("", 1), Pair("a.Service", 2), Pair("another.Service", 1)));
}

TEST_F(HealthServiceTest, WatchesTellEachChangeOnce) {
  server_.probes.SetServing(true);
  Watch watch = NewWatch("a.Service");
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
  server_.probes.health().Set("a.Service", true);  // no change: nothing is sent
  server_.probes.health().Set("a.Service", false);
  EXPECT_EQ(watch.Next(), HealthCheckResponse::NOT_SERVING);
  server_.probes.health().Set("another.Service", false);  // another's
  server_.probes.health().Set("a.Service", true);
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
}

TEST_F(HealthServiceTest, WatchesOfUnknownServicesLearnOfThem) {
  Watch watch = NewWatch("later.Service");
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  server_.probes.health().Set("later.Service", true);
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
}

TEST_F(HealthServiceTest, WatchesEndAfterTheLastStatus) {
  server_.probes.SetServing(true);
  Watch watch = NewWatch("");
  Watch of_nobody = NewWatch("nobody");
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
  EXPECT_EQ(of_nobody.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  server_.probes.SetServing(false);
  server_.probes.End(absl::Seconds(60));
  EXPECT_EQ(watch.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(watch.Next(), HealthCheckResponse::UNKNOWN);
  EXPECT_EQ(watch.reader->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(of_nobody.reader->Finish().error_code(), StatusCode::UNAVAILABLE);

  Watch late = NewWatch("");
  EXPECT_EQ(late.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(late.reader->Finish().error_code(), StatusCode::UNAVAILABLE);
  HealthCheckResponse response;
  EXPECT_TRUE(Check("", &response).ok()) << "checks are still answered";
}

// A set of watches that come and go while the status changes; run under ThreadSanitizer too.
TEST_F(HealthServiceTest, WatchesComeAndGoWhileTheStatusChanges) {
  server_.probes.SetServing(true);
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([this] {
      for (int i = 0; i < 50; ++i) {
        Watch watch = NewWatch(i % 3 == 0 ? "nobody" : "a.Service");
        EXPECT_NE(watch.Next(), HealthCheckResponse::UNKNOWN);
        watch.context->TryCancel();
        EXPECT_FALSE(watch.reader->Finish().ok());
      }
    });
  }
  for (int i = 0; i < 500; ++i) server_.probes.health().Set("a.Service", i % 2 == 0);
  for (std::thread& client : clients) client.join();
  server_.probes.End(absl::Seconds(60));
}

// A change that comes while the one before is being written is sent after it.
TEST_F(HealthServiceTest, TheLastOfQuickChangesIsAlwaysTold) {
  HealthService& health = server_.probes.health();
  health.Set("a.Service", true);
  Watch watch = NewWatch("a.Service");
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVING);
  for (int round = 0; round < 300; ++round) {
    health.Set("a.Service", false);
    health.Set("a.Service", true);
    // The first of the two may be overtaken.
    HealthCheckResponse::ServingStatus got = watch.Next();
    if (got == HealthCheckResponse::NOT_SERVING) got = watch.Next();
    ASSERT_EQ(got, HealthCheckResponse::SERVING) << round;
  }
}

TEST_F(HealthServiceTest, MalformedRequestsAreRefused) {
  server_.probes.SetServing(true);
  const grpc::Slice slice("\x0a\x7f");  // a string of 127 bytes that are not there
  const grpc::ByteBuffer request(&slice, 1);
  for (const char* method : {"Check", "List", "Watch"}) {
    grpc::ByteBuffer reply;
    const grpc::Status status = test::RawCall(server_.channel, std::string("/grpc.health.v1.Health/") + method,
                                              *ProbesServer::Context(), request, &reply);
    EXPECT_FALSE(status.ok()) << method;
    EXPECT_EQ(reply.Length(), 0U) << method;
  }
  EXPECT_TRUE(test::Becomes([this] { return server_.probes.health().use().watchers == 0; }));
}

TEST_F(HealthServiceTest, LongNamesAreRefused) {
  Watch watch = NewWatch(std::string(HealthService::kMaxNameBytes, 'n'));
  EXPECT_EQ(watch.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  Watch longer = NewWatch(std::string(HealthService::kMaxNameBytes + 1, 'n'));
  const grpc::Status refused = longer.reader->Finish();
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("service: expected at most 1024 bytes"));
}

// The threads of this process, as Linux counts them.
int Threads() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == "Threads:") break;
  }
  int threads = 0;
  status >> threads;
  return threads;
}

TEST_F(HealthServiceTest, ThousandsOfWatchesCostNoThread) {
  server_.probes.SetServing(true);
  std::vector<Watch> watches;
  watches.push_back(NewWatch(""));
  ASSERT_EQ(watches[0].Next(), HealthCheckResponse::SERVING);
  const int before = Threads();
  for (int i = 1; i < 2000; ++i) {
    watches.push_back(NewWatch(i % 2 == 0 ? "" : "nobody"));
    EXPECT_NE(watches.back().Next(), HealthCheckResponse::UNKNOWN);
  }
  EXPECT_LE(Threads(), before + 8) << "gRPC's own number varies by a few";
  server_.probes.SetServing(false);
  EXPECT_EQ(watches[0].Next(), HealthCheckResponse::NOT_SERVING);
  server_.probes.End(absl::Seconds(60));
  for (Watch& watch : watches) {
    while (watch.Next() != HealthCheckResponse::UNKNOWN) continue;
    EXPECT_EQ(watch.reader->Finish().error_code(), StatusCode::UNAVAILABLE);
  }
}

}  // namespace
}  // namespace attnd::server
