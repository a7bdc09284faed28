// The library several times in one process, and beside other compiled copies of the messages.
#include <dlfcn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <set>
#include <string>

#include "attnd/client.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "attnd/v1/session.pb.h"
#include "client/src/methods.h"
#include "fake_server.h"
#include "gtest/gtest.h"

namespace attnd::client {
namespace {

class Models : public v1::ModelService::Service {
  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*, v1::ListModelsResponse* page) override {
    page->add_models()->set_name("book");
    return grpc::Status::OK;
  }
};

// Refuses the model "refused" with a google.rpc.Status, spelled out, whose detail names the field.
grpc::Status Answer(grpc::ServerContext*, const v1::ComputeAttentionRequest& request,
                    v1::ComputeAttentionResponse& response) {
  if (request.model() == "refused") {
    v1::ErrorDetail detail;
    detail.set_field("model");
    google::protobuf::Any any;
    any.PackFrom(detail);
    const std::string bytes = any.SerializeAsString();
    return {grpc::StatusCode::NOT_FOUND, "no such model",
            std::string("\x1a", 1) + static_cast<char>(bytes.size()) + bytes};
  }
  PlainAttention(request, *response.mutable_output(), *response.mutable_log_sum_exp());
  response.clear_log_sum_exp();
  response.set_dtype(v1::DTYPE_FP32);
  return grpc::Status::OK;
}

class PluginsTest : public testing::Test {
 protected:
  PluginsTest() { attention_.handler = Answer; }

  int RunHost(const std::string& scope) {
    const std::string command =
        std::string(ATTND_HOST) + " " + scope + " " + server_.target() + " " ATTND_PLUGIN_ONE " " ATTND_PLUGIN_TWO;
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  FakeAttention attention_;
  Models models_;
  FakeServer server_{{&attention_, &models_}};
};

TEST_F(PluginsTest, TwoWithScopesOfTheirOwn) { EXPECT_EQ(RunHost("local"), 0); }

TEST_F(PluginsTest, TwoInOneScope) { EXPECT_EQ(RunHost("global"), 0); }

// This program links the messages of attnd.v1 in full and the library beside them; the plugins come on top.
TEST_F(PluginsTest, InAProgramWithTheLibraryAndTheMessages) {
  absl::StatusOr<Client> client = Client::Create(server_.target());
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(client->ListModels().ok());
  for (const char* path : {ATTND_PLUGIN_ONE, ATTND_PLUGIN_TWO}) {
    void* const plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    ASSERT_NE(plugin, nullptr) << dlerror();
    const auto call = reinterpret_cast<int (*)(const char*)>(dlsym(plugin, "CallServer"));
    ASSERT_NE(call, nullptr);
    EXPECT_EQ(call(server_.target().c_str()), 0);
  }
}

// The library spells the methods out; the contract has the same ones.
TEST(MethodsTest, AreThoseOfTheContract) {
  std::set<std::string> contract;
  for (const auto* file : {v1::ComputeAttentionRequest::descriptor()->file(), v1::Model::descriptor()->file(),
                           v1::SessionOpen::descriptor()->file(), v1::GetServerInfoRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      for (int m = 0; m < service->method_count(); ++m) {
        contract.insert("/" + service->full_name() + "/" + service->method(m)->name());
      }
    }
  }
  EXPECT_EQ(std::set<std::string>(std::begin(method::kAll), std::end(method::kAll)), contract);
}

}  // namespace
}  // namespace attnd::client
