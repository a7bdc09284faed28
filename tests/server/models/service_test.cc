// What waits for what, over gRPC in this process; methods_test.cc has what the methods answer, and ways_out_test.cc how
// calls end.

#include "server/models/service.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "spdlog/spdlog.h"
#include "stuck_log.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr std::chrono::seconds kPatience{30};

class ModelServiceTest : public testing::Test {
 protected:
  explicit ModelServiceTest(std::int64_t memory = std::int64_t{1} << 30)
      : ledger_({.total = memory, .shares = false}), logger_before_(spdlog::default_logger()) {
    EXPECT_TRUE(registry_.AddEmbedded().ok());
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", log_));
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = server_->InProcessChannel(arguments);
    stub_ = v1::ModelService::NewStub(channel_);
  }
  ~ModelServiceTest() override {
    log_->Go();
    for (std::thread& thread : threads_) thread.join();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    spdlog::set_default_logger(logger_before_);
  }

  // Unloads a model that is not there, whose line in the log holds a thread.
  void HoldTableThreads() {
    for (int i = 0; i < ModelService::kTableThreads; ++i) {
      threads_.emplace_back([this] {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + kPatience);
        v1::UnloadModelRequest request;
        request.set_name("no-such");
        v1::UnloadModelResponse response;
        EXPECT_EQ(stub_->UnloadModel(&context, request, &response).error_code(), StatusCode::NOT_FOUND);
      });
    }
    EXPECT_TRUE(log_->AwaitWriters(ModelService::kTableThreads)) << "threads are not held";
  }

  grpc::Status Bias() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::GetBiasRequest request;
    request.set_model("book");
    request.set_query_count(3);
    request.set_key_count(3);
    v1::GetBiasResponse response;
    return stub_->GetBias(&context, request, &response);
  }

  const std::shared_ptr<StuckLog> log_ = std::make_shared<StuckLog>();
  model::Registry registry_{model::RegistryOptions{}};
  memory::Ledger ledger_;
  Counters counters_;
  StallWatch stalls_{{}, counters_, nullptr};
  ModelService service_{Limits(), registry_, ledger_, stalls_};
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ModelService::Stub> stub_;
  std::vector<std::thread> threads_;

 private:
  std::shared_ptr<spdlog::logger> logger_before_;
};

TEST_F(ModelServiceTest, WhatProbesAskIsAnsweredWhileAllThreadsAreHeld) {
  HoldTableThreads();
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext list;
    list.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::ListModelsResponse page;
    EXPECT_TRUE(stub_->ListModels(&list, {}, &page).ok());
    EXPECT_GT(page.models_size(), 0);
    grpc::ClientContext get;
    get.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::GetModelRequest request;
    request.set_name("book");
    v1::GetModelResponse response;
    EXPECT_TRUE(stub_->GetModel(&get, request, &response).ok());
    EXPECT_EQ(response.model().name(), "book");
  }
}

TEST_F(ModelServiceTest, LoadsDoNotWaitForTables) {
  HoldTableThreads();
  threads_.emplace_back([this] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::LoadModelRequest request;
    request.set_path("no-such.json");
    v1::LoadModelResponse response;
    EXPECT_EQ(stub_->LoadModel(&context, request, &response).error_code(), StatusCode::FAILED_PRECONDITION);
  });
  EXPECT_TRUE(log_->AwaitWriters(ModelService::kTableThreads + 1)) << "it has not got as far as its line";
}

TEST_F(ModelServiceTest, ManyCallsWaitTheirTurn) {
  HoldTableThreads();
  for (int i = 0; i < 32; ++i) threads_.emplace_back([this] { EXPECT_TRUE(Bias().ok()); });
  log_->Go();
}

class SmallModelServiceTest : public ModelServiceTest {
 protected:
  SmallModelServiceTest() : ModelServiceTest(kMost) {}

  // What may wait together, with what holds the threads.
  static constexpr std::int64_t kMost = std::int64_t{64} << 20;

  grpc::Status Upload(std::int64_t bytes) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::UploadTableRequest request;
    request.set_model(std::string(static_cast<std::size_t>(bytes), 'm'));
    v1::UploadTableResponse response;
    return stub_->UploadTable(&context, request, &response);
  }
};

TEST_F(SmallModelServiceTest, WhatWaitsIsBounded) {
  HoldTableThreads();
  threads_.emplace_back([this] { EXPECT_EQ(Upload(kMost / 4).error_code(), StatusCode::INVALID_ARGUMENT); });
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (ledger_.used_bytes() < kMost / 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  const grpc::Status refused = Upload(kMost / 5);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("request: expected at most 67108864 bytes in flight"));
}

// What a message becomes counts before it is parsed, and the answer before it is made; afterwards nothing is held.
TEST_F(SmallModelServiceTest, WhatACallNeedsIsTakenBeforeItIsMade) {
  log_->Go();
  const grpc::Status upload = Upload(kMost / 2);
  EXPECT_EQ(upload.error_code(), StatusCode::RESOURCE_EXHAUSTED) << "its message alone fits";
  EXPECT_THAT(upload.error_message(), HasSubstr("which can never fit"));
  EXPECT_EQ(Upload(kMost / 4).error_code(), StatusCode::INVALID_ARGUMENT) << "no name is as long";

  v1::GetBiasRequest window;
  window.set_model("book");
  window.set_query_count(1024);
  window.set_key_count(512);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::GetBiasResponse response;
  const grpc::Status fits = stub_->GetBias(&context, window, &response);
  EXPECT_TRUE(fits.ok()) << fits.error_message();
  window.set_key_count(4096);
  grpc::ClientContext again;
  again.set_deadline(std::chrono::system_clock::now() + kPatience);
  EXPECT_EQ(stub_->GetBias(&again, window, &response).error_code(), StatusCode::RESOURCE_EXHAUSTED);

  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (ledger_.used_bytes() > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(ledger_.used_bytes(), 0);
}

}  // namespace
}  // namespace attnd::server
