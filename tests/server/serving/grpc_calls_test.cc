#include "server/serving/grpc_calls.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(GrpcCallsTest, OfJson) {
  const GrpcCalls calls = CallsInChannelz(
      R"({"server":{"data":{"callsFailed":"2","callsStarted":"45","callsSucceeded":"40"},"ref":{"serverId":"7"}}})");
  EXPECT_EQ(calls.begun, 45);
  EXPECT_EQ(calls.ended, 42);
  for (const char* json : {"", "{}", R"({"callsStarted")", R"({"callsStarted":)", R"({"callsStarted":"})"}) {
    EXPECT_EQ(CallsInChannelz(json).begun, 0) << json;
  }
}

TEST(GrpcCallsTest, NotBegunAreThoseThatCameLateAndWereNotAnswered) {
  const struct {
    GrpcCalls before, after;
    std::int64_t not_begun;
  } kCases[] = {
      {{0, 0}, {0, 0}, 0},     {{10, 7}, {10, 10}, 0},  // what was in flight has been answered
      {{10, 10}, {13, 10}, 3},                          // late ones
      {{10, 7}, {13, 10}, 3},  {{10, 7}, {13, 12}, 1},  // two of the late ones reached a service
      {{10, 7}, {13, 13}, 0},  {{10, 4}, {11, 9}, 1},   // another one came before and reached none
      {{10, 8}, {10, 8}, 0},   {{10, 8}, {0, 0}, 0},    // there was no memory for counting
      {{0, 0}, {5, 5}, 0},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(NotBegun(c.before, c.after), c.not_begun)
        << c.before.begun << " " << c.after.begun << " " << c.after.ended;
  }
}

// Each server's own, whatever others in the process do.
TEST(GrpcCallsTest, OfServers) {
  struct Served {
    Served() {
      grpc::ServerBuilder builder;
      builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
      builder.RegisterService(&service);
      server = builder.BuildAndStart();
      name = NewestGrpcServer();
    }
    void Call() {
      const auto stub = v1::ServerService::NewStub(
          grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
      grpc::ClientContext context;
      v1::GetServerInfoResponse response;
      EXPECT_EQ(stub->GetServerInfo(&context, {}, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
    }
    int port = 0;
    v1::ServerService::Service service;
    std::unique_ptr<grpc::Server> server;
    std::int64_t name = 0;
  };
  Served first;
  Served second;
  EXPECT_NE(first.name, second.name);
  for (int i = 0; i < 3; ++i) first.Call();
  second.Call();
  for (const Served* served : {&first, &second}) served->server->Shutdown();  // whose ends are counted then
  EXPECT_EQ(CountGrpcCalls(first.name).begun, 3);
  EXPECT_EQ(CountGrpcCalls(first.name).ended, 3);
  EXPECT_EQ(CountGrpcCalls(second.name).begun, 1);
  EXPECT_EQ(CountGrpcCalls(second.name).ended, 1);
}

}  // namespace
}  // namespace attnd::server
