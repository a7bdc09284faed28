// The two versions over gRPC; what they answer is in describe_test.cc.

#include "server/probes/reflection_service.h"

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "probes/probes_server.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

template <typename Service, typename RequestMessage, typename ResponseMessage>
struct Version {
  using Stub = Service;
  using Request = RequestMessage;
  using Response = ResponseMessage;
};

using V1 = Version<grpc::reflection::v1::ServerReflection, grpc::reflection::v1::ServerReflectionRequest,
                   grpc::reflection::v1::ServerReflectionResponse>;
using V1Alpha = Version<grpc::reflection::v1alpha::ServerReflection, grpc::reflection::v1alpha::ServerReflectionRequest,
                        grpc::reflection::v1alpha::ServerReflectionResponse>;

template <typename Version>
class ReflectionServiceTest : public testing::Test {
 protected:
  using Request = typename Version::Request;
  using Response = typename Version::Response;

  struct Stream {
    std::unique_ptr<grpc::ClientContext> context = ProbesServer::Context();
    std::unique_ptr<grpc::ClientReaderWriter<Request, Response>> calls;

    Response Ask(const Request& request) {
      Response response;
      EXPECT_TRUE(calls->Write(request));
      EXPECT_TRUE(calls->Read(&response));
      return response;
    }
  };

  Stream NewStream() {
    Stream stream;
    stream.calls = stub_->ServerReflectionInfo(stream.context.get());
    return stream;
  }

  static Request Listing() {
    Request request;
    request.set_list_services("");
    return request;
  }

  ProbesServer server_;
  const std::unique_ptr<typename Version::Stub::Stub> stub_ = Version::Stub::NewStub(server_.channel);
};

using Versions = testing::Types<V1, V1Alpha>;
TYPED_TEST_SUITE(ReflectionServiceTest, Versions);

TYPED_TEST(ReflectionServiceTest, HealthAndReflectionDescribeThemselves) {
  auto stream = this->NewStream();
  std::vector<std::string> names;
  const auto list = stream.Ask(this->Listing());
  for (const auto& service : list.list_services_response().service()) names.push_back(service.name());
  EXPECT_THAT(names,
              UnorderedElementsAre("a.Service", "another.Service", "grpc.health.v1.Health",
                                   "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"));
  for (const std::string& name : names) {
    if (name.rfind("grpc.", 0) != 0) continue;
    typename TypeParam::Request request;
    request.set_file_containing_symbol(name);
    const auto response = stream.Ask(request);
    ASSERT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1) << name;
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
    EXPECT_EQ(file.package() + "." + file.service(0).name(), name);
  }
  EXPECT_TRUE(stream.calls->WritesDone());
  EXPECT_TRUE(stream.calls->Finish().ok());
}

TYPED_TEST(ReflectionServiceTest, StreamsEndWhenTheServerStops) {
  std::vector<typename ReflectionServiceTest<TypeParam>::Stream> streams;
  for (int i = 0; i < 20; ++i) streams.push_back(this->NewStream());
  for (auto& stream : streams) stream.Ask(this->Listing());
  this->server_.probes.End(absl::Seconds(60));
  this->server_.Shutdown(kPatience);  // waits for no stream
  for (auto& stream : streams) EXPECT_EQ(stream.calls->Finish().error_code(), StatusCode::UNAVAILABLE);
}

// Answers that nobody reads fill what the connection holds, and then the write does not end.
TYPED_TEST(ReflectionServiceTest, AStreamThatIsNotReadIsCancelledAtTheStop) {
  auto stream = this->NewStream();
  typename TypeParam::Request request;
  request.set_file_by_filename("google/protobuf/descriptor.proto");
  EXPECT_GT(stream.Ask(request).ByteSizeLong(), 5000U);
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(stream.calls->Write(request));
  this->server_.probes.End(absl::Milliseconds(100));
  this->server_.Shutdown(kPatience);
  typename TypeParam::Response response;
  while (stream.calls->Read(&response)) continue;
  EXPECT_FALSE(stream.calls->Finish().ok());
}

// The stop comes while an answer waits for its reader: the answer is read to its end, and then the stream ends.
TYPED_TEST(ReflectionServiceTest, AStreamThatIsReadLateEndsAfterTheAnswerUnderWay) {
  auto stream = this->NewStream();
  typename TypeParam::Request request;
  request.set_file_by_filename("google/protobuf/descriptor.proto");
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(stream.calls->Write(request));
  auto idle = this->NewStream();
  idle.Ask(this->Listing());
  std::thread end([this] { this->server_.probes.End(absl::Seconds(20)); });
  EXPECT_EQ(idle.calls->Finish().error_code(), StatusCode::UNAVAILABLE) << "the stop has begun";
  typename TypeParam::Response response;
  int answers = 0;
  while (stream.calls->Read(&response)) {
    EXPECT_GT(response.file_descriptor_response().file_descriptor_proto_size(), 0);
    ++answers;
  }
  EXPECT_EQ(stream.calls->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_LT(answers, 500) << "no new one is begun";
  end.join();
}

TYPED_TEST(ReflectionServiceTest, AnswersInOrderUntilTheCallerEndsItsSide) {
  auto stream = this->NewStream();
  for (int i = 0; i < 20; ++i) {
    typename TypeParam::Request request;
    request.set_host(std::to_string(i));
    request.set_file_by_filename(i % 2 == 0 ? "no.proto" : "google/protobuf/descriptor.proto");
    const auto response = stream.Ask(request);
    EXPECT_EQ(response.original_request().SerializeAsString(), request.SerializeAsString());
    EXPECT_EQ(response.has_error_response(), i % 2 == 0);
  }
  EXPECT_TRUE(stream.calls->WritesDone());
  typename TypeParam::Response response;
  EXPECT_FALSE(stream.calls->Read(&response));
  EXPECT_TRUE(stream.calls->Finish().ok());
}

// Whatever way a stream ends, a stop does not wait for it.
TYPED_TEST(ReflectionServiceTest, NothingIsLeftOfAStreamThatHasEnded) {
  for (const char* way : {"ended", "cancelled", "late", "malformed", "too large"}) {
    SCOPED_TRACE(way);
    auto stream = this->NewStream();
    if (way == std::string("late")) {
      stream.calls.reset();
      stream.context = std::make_unique<grpc::ClientContext>();
      stream.context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
      stream.calls = this->stub_->ServerReflectionInfo(stream.context.get());
    } else if (way == std::string("ended")) {
      stream.Ask(this->Listing());
      EXPECT_TRUE(stream.calls->WritesDone());
    } else if (way == std::string("cancelled")) {
      stream.Ask(this->Listing());
      stream.context->TryCancel();
    } else if (way == std::string("malformed")) {
      // A string field that is no UTF-8.
      typename TypeParam::Request request;
      request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(3, "\xff\xfe");
      EXPECT_TRUE(stream.calls->Write(request));
    } else {
      typename TypeParam::Request request;
      request.set_file_by_filename(std::string(kMaxReflectionRequestBytes, 'f'));
      EXPECT_TRUE(stream.calls->Write(request));
    }
    const std::map<std::string, StatusCode> codes = {{"ended", StatusCode::OK},
                                                     {"cancelled", StatusCode::CANCELLED},
                                                     {"late", StatusCode::DEADLINE_EXCEEDED},
                                                     {"malformed", StatusCode::INVALID_ARGUMENT},
                                                     {"too large", StatusCode::RESOURCE_EXHAUSTED}};
    EXPECT_EQ(stream.calls->Finish().error_code(), codes.at(way));
  }
  EXPECT_TRUE(test::Ends([this] { this->server_.probes.End(absl::Hours(1)); })) << "a stream is not over";
  this->server_.Shutdown(kPatience);
}

TYPED_TEST(ReflectionServiceTest, LargeRequestsAreRefused) {
  auto stream = this->NewStream();
  typename TypeParam::Request request;
  // Tag and length take four bytes.
  request.set_file_by_filename(std::string(kMaxReflectionRequestBytes - 4, 'f'));
  ASSERT_EQ(request.ByteSizeLong(), kMaxReflectionRequestBytes);
  EXPECT_EQ(stream.Ask(request).error_response().error_code(), StatusCode::NOT_FOUND) << "the largest is answered";
  request.mutable_file_by_filename()->push_back('f');
  EXPECT_TRUE(stream.calls->Write(request));
  typename TypeParam::Response response;
  EXPECT_FALSE(stream.calls->Read(&response));
  const grpc::Status refused = stream.calls->Finish();
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("request: expected at most 65536 bytes"));
}

}  // namespace
}  // namespace attnd::server
