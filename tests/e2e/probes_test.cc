// What probes ask is answered whatever else the server is asked for, and nothing is refused because threads are taken.

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckResponse;

constexpr std::chrono::seconds kPatience{120};

template <typename Context>
Context& WithDeadline(Context& context) {
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  return context;
}

// Calls from `callers` threads, each on a connection of its own, `rounds` times each; the number that failed.
int Failures(const TestServer& server, int callers, int rounds,
             const std::function<grpc::Status(v1::ModelService::Stub&, grpc::ClientContext&)>& call) {
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < callers; ++c) {
    threads.emplace_back([&] {
      const auto stub = v1::ModelService::NewStub(NewChannel(server.address()));
      for (int i = 0; i < rounds; ++i) {
        grpc::ClientContext context;
        if (!call(*stub, WithDeadline(context)).ok()) ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failed.load();
}

TEST(ProbesTest, WindowsOfABiasAreRefusedToNoOneOfManyCallers) {
  TestServer server;
  for (const std::int64_t size : {128, 256}) {
    const int failed = Failures(server, 32, 10, [&](v1::ModelService::Stub& stub, grpc::ClientContext& context) {
      v1::GetBiasRequest request;
      request.set_model(kModel);
      request.set_query_count(size);
      request.set_key_count(size);
      v1::GetBiasResponse response;
      const grpc::Status status = stub.GetBias(&context, request, &response);
      EXPECT_EQ(response.offsets_size(), size * size) << status.error_message();
      return status;
    });
    EXPECT_EQ(failed, 0) << size;
  }
}

TEST(ProbesTest, ListsAreRefusedToNoOneOfManyCallers) {
  TestServer server;
  EXPECT_EQ(Failures(server, 32, 60,
                     [](v1::ModelService::Stub& stub, grpc::ClientContext& context) {
                       v1::ListModelsResponse page;
                       return stub.ListModels(&context, {}, &page);
                     }),
            0);
}

// Streams that are open and idle: reflection of both versions, and watches.
class IdleStreams {
 public:
  IdleStreams(const std::shared_ptr<grpc::Channel>& channel, int count)
      : v1_(grpc::reflection::v1::ServerReflection::NewStub(channel)),
        v1alpha_(grpc::reflection::v1alpha::ServerReflection::NewStub(channel)),
        health_(grpc::health::v1::Health::NewStub(channel)) {
    for (int i = 0; i < count; ++i) {
      streams_.push_back(v1_->ServerReflectionInfo(Context()));
      grpc::reflection::v1::ServerReflectionRequest request;
      grpc::reflection::v1::ServerReflectionResponse response;
      request.set_list_services("");
      EXPECT_TRUE(streams_.back()->Write(request) && streams_.back()->Read(&response));
      alpha_streams_.push_back(v1alpha_->ServerReflectionInfo(Context()));
      grpc::reflection::v1alpha::ServerReflectionRequest alpha_request;
      grpc::reflection::v1alpha::ServerReflectionResponse alpha_response;
      alpha_request.set_list_services("");
      EXPECT_TRUE(alpha_streams_.back()->Write(alpha_request) && alpha_streams_.back()->Read(&alpha_response));
      watches_.push_back(health_->Watch(Context(), {}));
      HealthCheckResponse status;
      EXPECT_TRUE(watches_.back()->Read(&status));
      EXPECT_EQ(status.status(), HealthCheckResponse::SERVING);
    }
  }

  // Expects each to end with UNAVAILABLE, and watches to say NOT_SERVING before.
  void ExpectStopped() {
    for (auto& stream : streams_) EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
    for (auto& stream : alpha_streams_) EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
    for (auto& watch : watches_) {
      HealthCheckResponse status;
      EXPECT_TRUE(watch->Read(&status));
      EXPECT_EQ(status.status(), HealthCheckResponse::NOT_SERVING);
      EXPECT_FALSE(watch->Read(&status));
      EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAVAILABLE);
    }
  }

 private:
  grpc::ClientContext* Context() {
    contexts_.push_back(std::make_unique<grpc::ClientContext>());
    return &WithDeadline(*contexts_.back());
  }

  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::unique_ptr<grpc::reflection::v1::ServerReflection::Stub> v1_;
  std::unique_ptr<grpc::reflection::v1alpha::ServerReflection::Stub> v1alpha_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<grpc::reflection::v1::ServerReflectionRequest,
                                                       grpc::reflection::v1::ServerReflectionResponse>>>
      streams_;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<grpc::reflection::v1alpha::ServerReflectionRequest,
                                                       grpc::reflection::v1alpha::ServerReflectionResponse>>>
      alpha_streams_;
  std::vector<std::unique_ptr<grpc::ClientReader<HealthCheckResponse>>> watches_;
};

TEST(ProbesTest, IdleStreamsHinderNobody) {
  TestServer server;
  IdleStreams idle(NewChannel(server.address()), 20);
  grpc::ClientContext info;
  v1::GetServerInfoResponse facts;
  EXPECT_TRUE(server.info().GetServerInfo(&WithDeadline(info), {}, &facts).ok());
  grpc::ClientContext list;
  v1::ListModelsResponse page;
  EXPECT_TRUE(server.models().ListModels(&WithDeadline(list), {}, &page).ok());
  EXPECT_EQ(HealthOf(server.channel(), ""), Health::kServing);
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server.Compute(ValidRequest(), &response).ok());
}

// By default gRPC takes 8 KiB of metadata, and ends the connection's other calls for more.
TEST(ProbesTest, MuchMetadataHarmsNoOtherCallOfTheConnection) {
  TestServer server;
  IdleStreams idle(server.channel(), 1);
  for (const std::size_t bytes : {std::size_t{10} << 10, std::size_t{200} << 10}) {
    grpc::ClientContext context;
    context.AddMetadata("x-much", std::string(bytes, 'm'));
    v1::GetServerInfoResponse facts;
    const grpc::Status status = server.info().GetServerInfo(&WithDeadline(context), {}, &facts);
    EXPECT_TRUE(status.ok()) << bytes << ": " << status.error_message();
  }
  server.server().Stop();
  idle.ExpectStopped();
}

// With hours to drain, a stream that held the stop up would hold this test up.
TEST(ProbesTest, IdleStreamsEndAtTheStop) {
  server::Options options = TestOptions();
  options.drain = absl::Hours(10);
  TestServer server(options);
  IdleStreams idle(NewChannel(server.address()), 20);
  EXPECT_EQ(server.server().Stop().cut_off, 0);
  idle.ExpectStopped();
}

// A client that knows no .proto file finds every service that is registered, with its methods.
TEST(ProbesTest, EveryServiceIsDescribed) {
  TestServer server;
  const auto stub = grpc::reflection::v1::ServerReflection::NewStub(server.channel());
  grpc::ClientContext context;
  const auto stream = stub->ServerReflectionInfo(&WithDeadline(context));
  grpc::reflection::v1::ServerReflectionRequest request;
  grpc::reflection::v1::ServerReflectionResponse list;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&list));
  std::vector<std::string> names;
  for (const auto& service : list.list_services_response().service()) {
    names.push_back(service.name());
    request.set_file_containing_symbol(service.name());
    grpc::reflection::v1::ServerReflectionResponse response;
    ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
    ASSERT_GT(response.file_descriptor_response().file_descriptor_proto_size(), 0) << service.name();
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
    ASSERT_EQ(file.service_size(), 1) << service.name();
    EXPECT_EQ(file.package() + "." + file.service(0).name(), service.name());
  }
  EXPECT_THAT(names, testing::UnorderedElementsAre("attnd.v1.AttentionService", "attnd.v1.ModelService",
                                                   "attnd.v1.ServerService", "attnd.v1.SessionService",
                                                   "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                                                   "grpc.reflection.v1alpha.ServerReflection"));
}

}  // namespace
}  // namespace attnd::e2e
