#include "server/serving/info_service.h"

#include <chrono>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "pending_call.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;

class InfoServiceTest : public testing::Test {
 protected:
  void Start(InfoService::AddUse add_use) {
    v1::GetServerInfoResponse info;
    info.set_version("7");
    info.add_available_kernels("one");
    service_ = std::make_unique<InfoService>(info, std::move(add_use));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
  }
  ~InfoServiceTest() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  std::unique_ptr<test::PendingCall> Call(const std::string& request) {
    return std::make_unique<test::PendingCall>(channel_, "/attnd.v1.ServerService/GetServerInfo", request);
  }
  v1::GetServerInfoResponse Answer(const std::string& request = "") {
    const auto call = Call(request);
    EXPECT_TRUE(call->Await().ok()) << call->Await().error_message();
    grpc::ByteBuffer bytes = call->answer();
    v1::GetServerInfoResponse answer;
    EXPECT_TRUE(grpc::SerializationTraits<v1::GetServerInfoResponse>::Deserialize(&bytes, &answer).ok());
    return answer;
  }

  std::unique_ptr<InfoService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(InfoServiceTest, EveryAnswerIsTheFactsAndWhatIsInUseThen) {
  int use = 0;
  Start([&](v1::GetServerInfoResponse& info) {
    info.set_model_bytes(++use);
    info.add_available_kernels("added");
  });
  for (int i = 1; i <= 3; ++i) {
    const v1::GetServerInfoResponse answer = Answer();
    EXPECT_EQ(answer.version(), "7");
    EXPECT_EQ(answer.model_bytes(), i);
    EXPECT_EQ(answer.available_kernels_size(), 2) << "of this answer alone";
    EXPECT_EQ(service_->info().model_bytes(), 0);
  }
  EXPECT_EQ(Answer("\xc2\x3e\x01x").version(), "7") << "fields that it does not know are ignored";
}

TEST_F(InfoServiceTest, WithoutUseTheFactsAreAll) {
  Start(nullptr);
  EXPECT_EQ(Answer().DebugString(), service_->info().DebugString());
}

TEST_F(InfoServiceTest, MalformedRequestsAreRefused) {
  int use = 0;
  Start([&](v1::GetServerInfoResponse&) { ++use; });
  const auto call = Call("\x0a\x7f");  // a field of 127 bytes that are not there
  EXPECT_FALSE(call->Await().ok());
  EXPECT_EQ(call->answer().Length(), 0U);
  EXPECT_EQ(use, 0);
  EXPECT_EQ(Answer().version(), "7") << "the next one is answered";
}

TEST_F(InfoServiceTest, ALackOfMemoryIsAnErrorOfTheCall) {
  bool memory = false;
  Start([&](v1::GetServerInfoResponse&) {
    if (!memory) throw std::bad_alloc();
  });
  EXPECT_EQ(Call("")->Code(), StatusCode::RESOURCE_EXHAUSTED);
  memory = true;
  EXPECT_EQ(Answer().version(), "7");
}

}  // namespace
}  // namespace attnd::server
