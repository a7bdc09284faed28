#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "attnd/connection.h"
#include "attnd/error_detail.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "client/src/attention_caller.h"
#include "client/src/compute_call.h"
#include "client/src/convert.h"
#include "client/src/status.h"

namespace attnd {
namespace {

using client::FromGrpc;
using client::FromProto;
using client::ToProto;

class GrpcConnection : public Connection {
 public:
  GrpcConnection(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<client::AttentionCaller> attention)
      : attention_(std::move(attention)), models_(channel), server_(channel) {}

  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options) override {
    return attention_->Compute(request, options);
  }

  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) override {
    attention_->ComputeAsync(std::move(request), std::move(options), std::move(done));
  }

  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes) override { return attention_->AllocateBuffer(bytes); }

  absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options) override {
    std::vector<Model> models;
    v1::ListModelsRequest request;
    do {
      absl::StatusOr<v1::ListModelsResponse> page = Call(models_, &ModelStub::ListModels, request, options);
      if (!page.ok()) return page.status();
      for (const v1::Model& model : page->models()) models.push_back(FromProto(model));
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return models;
  }

  absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version, bool include_values,
                                 const CallOptions& options) override {
    v1::GetModelRequest request;
    request.set_name(name);
    request.set_version(version);
    request.set_include_values(include_values);
    return ModelOf(Call(models_, &ModelStub::GetModel, request, options));
  }

  absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name,
                                  const CallOptions& options) override {
    v1::LoadModelRequest request;
    request.set_path(path);
    request.set_name(name);
    return ModelOf(Call(models_, &ModelStub::LoadModel, request, options));
  }

  absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options) override {
    v1::ReloadModelRequest request;
    request.set_name(name);
    return ModelOf(Call(models_, &ModelStub::ReloadModel, request, options));
  }

  absl::Status UnloadModel(const std::string& name, const CallOptions& options) override {
    v1::UnloadModelRequest request;
    request.set_name(name);
    return Call(models_, &ModelStub::UnloadModel, request, options).status();
  }

  absl::StatusOr<Model> UploadTable(const std::string& model, const Table& table, bool replace,
                                    const CallOptions& options) override {
    v1::UploadTableRequest request;
    request.set_model(model);
    *request.mutable_table() = ToProto(table);
    request.set_replace(replace);
    return ModelOf(Call(models_, &ModelStub::UploadTable, request, options));
  }

  absl::StatusOr<BiasReply> GetBias(const BiasRequest& request, const CallOptions& options) override {
    const auto response = Call(models_, &ModelStub::GetBias, ToProto(request), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options) override {
    const auto response = Call(server_, &ServerStub::GetServerInfo, v1::GetServerInfoRequest(), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

 private:
  using ModelStub = v1::ModelService::Stub;
  using ServerStub = v1::ServerService::Stub;

  template <typename Stub, typename Request, typename Response>
  static absl::StatusOr<Response> Call(Stub& stub,
                                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                       const Request& request, const CallOptions& options) {
    const auto context = client::MakeContext(options);
    if (!context.ok()) return context.status();
    Response response;
    const grpc::Status status = (stub.*method)(context->get(), request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

  template <typename Response>
  static absl::StatusOr<Model> ModelOf(const absl::StatusOr<Response>& response) {
    if (!response.ok()) return response.status();
    return FromProto(response->model());
  }

  const std::shared_ptr<client::AttentionCaller> attention_;
  ModelStub models_;
  ServerStub server_;
};

absl::Status CheckOptions(const std::string& target, const ClientOptions& options) {
  const auto invalid = [](std::string field, std::string expected, std::string got) {
    return ErrorWithDetail(absl::StatusCode::kInvalidArgument, {field, expected, got});
  };
  if (target.empty()) return invalid("target", "host:port, dns:///name:port or unix:///path", "an empty string");
  if (options.load_balancing_policy != "pick_first" && options.load_balancing_policy != "round_robin") {
    return invalid("load_balancing_policy", "pick_first or round_robin", options.load_balancing_policy);
  }
  for (const auto& [field, value] : {std::pair{"keepalive_time", options.keepalive_time},
                                     std::pair{"keepalive_timeout", options.keepalive_timeout}}) {
    if (value < absl::Milliseconds(1)) return invalid(field, "at least 1ms", absl::FormatDuration(value));
  }
  return absl::OkStatus();
}

int Milliseconds(absl::Duration d) {
  return static_cast<int>(std::min<std::int64_t>(absl::ToInt64Milliseconds(d), std::numeric_limits<int>::max()));
}

bool IsLocal(const std::string& target) {
  const absl::string_view name = target;
  return absl::StartsWith(name, "unix:") || absl::StartsWith(name, "localhost:") || absl::StartsWith(name, "127.") ||
         absl::StartsWith(name, "[::1]");
}

grpc::ChannelArguments Arguments(const std::string& target, const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetLoadBalancingPolicyName(options.load_balancing_policy);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  // As the server's: docs/performance.md, "Settings of the channel".
  constexpr int kReadBytes = 256 << 10;
  arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadBytes);
  arguments.SetInt(GRPC_ARG_TCP_MIN_READ_CHUNK_SIZE, kReadBytes);
  // An http_proxy in the environment is meant for other machines.
  if (IsLocal(target)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetUserAgentPrefix(
      absl::StrCat(options.user_agent, options.user_agent.empty() ? "" : " ", "attnd-client/" ATTND_VERSION));
  return arguments;
}

client::StreamPlan PlanFor(const ClientOptions& options) {
  // A stream stays with one server. One is enough for one server; these are enough for the pieces of a call to reach
  // every one of several.
  constexpr int kStreamsOverServers = 8;
  client::StreamPlan plan;
  if (options.load_balancing_policy == "round_robin") plan.streams = kStreamsOverServers;
  return plan;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> Connect(const std::string& target, const ClientOptions& options) {
  if (auto s = CheckOptions(target, options); !s.ok()) return s;
  const auto credentials = options.credentials != nullptr ? options.credentials : grpc::InsecureChannelCredentials();
  const auto channel = grpc::CreateCustomChannel(target, credentials, Arguments(target, options));
  const auto memory = options.shared_memory ? client::SharedMemory::ForTarget(target) : nullptr;
  return std::make_shared<GrpcConnection>(channel,
                                          std::make_shared<client::AttentionCaller>(channel, memory, PlanFor(options)));
}

}  // namespace attnd
