// Models from files, over the wire: loaded, reloaded while calls run, and refused.

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;

// A hand-made model of two heads whose last bucket weighs `last`.
std::string Json(double last) {
  return absl::StrCat(
      R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5, "values": [[1, 2], [0.5, 0], [0, -1], [-1, )",
      last, "]]}}}");
}

class LoadTest : public testing::Test {
 protected:
  LoadTest() : folder_(fs::path(testing::TempDir()) / absl::StrCat("attnd_load_test_", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "root" / "deeper");
    Write("root/present.json", Json(3));
    Write("root/broken.json", "{");
    Write("root/deeper/later.json", Json(4));
    Write("outside.json", Json(5));
    fs::create_symlink(folder_ / "outside.json", folder_ / "root" / "escape.json");
    server::Options options = TestOptions();
    options.model_root = (folder_ / "root").string();
    server_ = std::make_unique<TestServer>(options);
  }
  ~LoadTest() override { fs::remove_all(folder_); }

  // As a writer should: the name changes what it stands for at once.
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / "new") << text;
    fs::rename(folder_ / "new", folder_ / name);
  }

  grpc::Status Load(const std::string& name, const std::string& path, v1::Model* model = nullptr) {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_name(name);
    request.set_path(path);
    v1::LoadModelResponse response;
    const grpc::Status status = server_->models().LoadModel(&context, request, &response);
    if (model != nullptr) *model = response.model();
    return status;
  }

  grpc::Status Reload(const std::string& name, v1::Model* model = nullptr) {
    grpc::ClientContext context;
    v1::ReloadModelRequest request;
    request.set_name(name);
    v1::ReloadModelResponse response;
    const grpc::Status status = server_->models().ReloadModel(&context, request, &response);
    if (model != nullptr) *model = response.model();
    return status;
  }

  v1::ComputeAttentionResponse Compute(const std::string& model) {
    v1::ComputeAttentionRequest request = ValidRequest();
    request.set_model(model);
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server_->Compute(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  const fs::path folder_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(LoadTest, WhatLiesInTheRootIsThereAndWhatCannotBeLoadedIsNot) {
  EXPECT_EQ(Compute("present").version(), 1u);
  for (const char* name : {"broken", "escape", "outside", "deeper", "later"}) {
    v1::ComputeAttentionRequest request = ValidRequest();
    request.set_model(name);
    v1::ComputeAttentionResponse response;
    EXPECT_EQ(server_->Compute(request, &response).error_code(), StatusCode::NOT_FOUND) << name;
  }
}

TEST_F(LoadTest, LoadNamesTheModelAfterItsFileUnlessTold) {
  v1::Model model;
  ASSERT_TRUE(Load("", "deeper/later.json", &model).ok());
  EXPECT_EQ(model.name(), "later");
  EXPECT_EQ(model.source(), "deeper/later.json");
  EXPECT_EQ(model.format(), "json");
  ASSERT_TRUE(Load("other", "deeper/later.json", &model).ok());
  EXPECT_EQ(Compute("other").output(), Compute("later").output());
  EXPECT_EQ(Load("", "deeper/later.json").error_code(), StatusCode::ALREADY_EXISTS);
}

TEST_F(LoadTest, BadPathsAndFiles) {
  const struct {
    const char* path;
    StatusCode code;
  } kCases[] = {
      {"", StatusCode::INVALID_ARGUMENT},
      {"nothing.json", StatusCode::NOT_FOUND},
      {"/etc/passwd", StatusCode::PERMISSION_DENIED},
      {"../outside.json", StatusCode::PERMISSION_DENIED},
      {"deeper/../../outside.json", StatusCode::PERMISSION_DENIED},
      {"escape.json", StatusCode::PERMISSION_DENIED},
      {"broken.json", StatusCode::INVALID_ARGUMENT},
  };
  for (const auto& c : kCases) {
    const grpc::Status status = Load("bad", c.path);
    EXPECT_EQ(status.error_code(), c.code) << c.path << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), testing::Not(testing::HasSubstr(folder_.string())))
        << "what lies above the root is nobody's business";
  }
  for (const char* name : {"a/b/c", "..", ".hidden"}) {
    EXPECT_EQ(Load(name, "present.json").error_code(), StatusCode::INVALID_ARGUMENT) << name;
  }
}

TEST_F(LoadTest, FailedReloadKeepsTheOldVersion) {
  const v1::ComputeAttentionResponse before = Compute("present");
  Write("root/present.json", "{}");
  const grpc::Status status = Reload("present");
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
  const v1::ComputeAttentionResponse after = Compute("present");
  EXPECT_EQ(after.version(), before.version());
  EXPECT_EQ(after.output(), before.output());
  Write("root/present.json", Json(7));
  v1::Model model;
  ASSERT_TRUE(Reload("present", &model).ok());
  EXPECT_EQ(model.version(), before.version() + 1);
  EXPECT_NE(Compute("present").content_hash(), before.content_hash());
  EXPECT_EQ(Reload("book").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reload("nobody").error_code(), StatusCode::NOT_FOUND);
}

// Calls without pause, while the file changes and is reloaded: every answer is one version's, and versions only grow.
TEST_F(LoadTest, ReloadUnderLoad) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      std::uint64_t version = 0;
      std::string output;
      while (!stop.load()) {
        const v1::ComputeAttentionResponse response = Compute("present");
        EXPECT_GE(response.version(), version);
        if (response.version() == version) {
          EXPECT_EQ(response.output(), output);
        }
        version = response.version();
        output = response.output();
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    Write("root/present.json", i % 3 == 2 ? "{}" : Json(i));
    EXPECT_EQ(Reload("present").ok(), i % 3 != 2);
  }
  stop.store(true);
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(Compute("present").version(), 21u);
}

}  // namespace
}  // namespace attnd::e2e
