// ModelMethods with a model root of its own and a log that is kept.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/models/methods.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"

namespace attnd::server {

inline constexpr char kJson[] = R"({"tables": {"decoder": {"rule": "t5", "nb": 3, "dist_max": 5,
                             "values": [[1], [2], [3], [4]]}}})";

inline v1::Table Table(bool bidirectional = false, std::int64_t heads = 1) {
  v1::Table table;
  table.set_heads(heads);
  table.set_bidirectional(bidirectional);
  table.mutable_t5()->set_num_buckets(4);
  table.mutable_t5()->set_max_distance(6);
  for (std::int64_t i = 0; i < 4 * heads; ++i) table.mutable_t5()->add_values(static_cast<float>(i));
  return table;
}

class ModelMethodsTest : public testing::Test {
 protected:
  ModelMethodsTest() {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::path(testing::TempDir()) / absl::StrCat("model_methods_test.", getpid(), ".", info.name());
    std::filesystem::create_directories(root_);
    limits_.max_models = 12;
    limits_.max_table_values = 100;
    limits_.max_page_size = 5;
    Start(root_);
    logger_before_ = spdlog::default_logger();
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_st>(log_)));
  }
  ~ModelMethodsTest() override {
    spdlog::set_default_logger(logger_before_);
    std::filesystem::remove_all(root_);
  }

  // A service whose registry is empty.
  void Start(const std::string& root) {
    methods_ = nullptr;
    model::RegistryOptions options;
    options.model_root = root;
    options.max_models = limits_.max_models;
    options.max_table_values = limits_.max_table_values;
    options.before_change = [this] {
      if (auto meanwhile = std::exchange(meanwhile_, nullptr)) meanwhile();
    };
    registry_ = std::make_unique<model::Registry>(options);
    methods_ = std::make_unique<ModelMethods>(limits_, *registry_);
  }

  void Write(const std::string& path, const std::string& text = kJson) {
    std::ofstream(root_ / path, std::ios::trunc) << text;
  }

  grpc::Status List(std::int64_t page_size, const std::string& token = "") {
    v1::ListModelsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    page_.Clear();
    return methods_->ListModels(&request, &page_);
  }

  grpc::Status Get(const std::string& name, std::uint64_t version = 0, bool include_values = false) {
    v1::GetModelRequest request;
    request.set_name(name);
    request.set_version(version);
    request.set_include_values(include_values);
    v1::GetModelResponse response;
    return Keep(methods_->GetModel(&request, &response), response);
  }

  grpc::Status Load(const std::string& name, const std::string& path) {
    v1::LoadModelRequest request;
    request.set_name(name);
    request.set_path(path);
    v1::LoadModelResponse response;
    return Keep(methods_->LoadModel(&request, &response), response);
  }

  grpc::Status Reload(const std::string& name) {
    v1::ReloadModelRequest request;
    request.set_name(name);
    v1::ReloadModelResponse response;
    return Keep(methods_->ReloadModel(&request, &response), response);
  }

  grpc::Status Unload(const std::string& name) {
    v1::UnloadModelRequest request;
    request.set_name(name);
    v1::UnloadModelResponse response;
    return methods_->UnloadModel(&request, &response);
  }

  grpc::Status Upload(const std::string& model, const v1::Table& table, bool replace = false) {
    v1::UploadTableRequest request;
    request.set_model(model);
    *request.mutable_table() = table;
    request.set_replace(replace);
    v1::UploadTableResponse response;
    return Keep(methods_->UploadTable(&request, &response), response);
  }

  grpc::Status Bias(const std::string& model, std::uint64_t version, std::int64_t count, v1::GetBiasResponse* window) {
    v1::GetBiasRequest request;
    request.set_model(model);
    request.set_version(version);
    request.set_query_count(count);
    request.set_key_count(count);
    return methods_->GetBias(&request, window);
  }

  std::vector<std::string> NamesOfPage() const {
    std::vector<std::string> names;
    for (const v1::Model& model : page_.models()) names.push_back(model.name());
    return names;
  }

  Limits limits_;
  std::filesystem::path root_;
  std::unique_ptr<model::Registry> registry_;
  std::unique_ptr<ModelMethods> methods_;
  std::ostringstream log_;
  v1::ListModelsResponse page_;      // of the last List
  std::function<void()> meanwhile_;  // runs once, when the next change has read its model and has not made it current
  v1::Model model_;                  // of the last call that answers with one; empty if it failed

 private:
  template <typename Response>
  grpc::Status Keep(grpc::Status status, const Response& response) {
    model_ = response.model();
    return status;
  }

  std::shared_ptr<spdlog::logger> logger_before_;
};

}  // namespace attnd::server
