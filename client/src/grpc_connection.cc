#include "client/src/grpc_connection.h"

#include <utility>

#include "client/messages/model.pb.h"
#include "client/messages/server.pb.h"
#include "client/messages/session.pb.h"
#include "client/src/convert.h"
#include "client/src/grpc_session.h"
#include "client/src/local_session.h"
#include "client/src/message_call.h"
#include "client/src/methods.h"
#include "client/src/process.h"
#include "client/src/session.h"

namespace attnd::client {
namespace {

class GrpcConnection : public Connection {
 public:
  GrpcConnection(std::shared_ptr<RetryPolicy> retry, std::shared_ptr<AttentionCaller> attention,
                 std::shared_ptr<LocalCalls> local)
      : retry_(std::move(retry)), attention_(std::move(attention)), local_(std::move(local)) {}

  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options) override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    return attention_->Compute(request, options);
  }

  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) override {
    if (auto s = CheckProcess(); !s.ok()) return done(s);
    attention_->ComputeAsync(std::move(request), std::move(options), std::move(done));
  }

  absl::StatusOr<std::unique_ptr<Session>> OpenSession(const SessionRequest& request,
                                                       const CallOptions& options) override {
    return Repeated<std::unique_ptr<Session>>(options, [&]() -> absl::StatusOr<std::unique_ptr<Session>> {
      const absl::StatusOr<std::shared_ptr<SessionStream>> stream = StreamFor(request, options);
      if (!stream.ok()) return stream.status();
      return client::OpenSession(*stream, request, options.deadline);
    });
  }

  absl::StatusOr<std::vector<OpenSessionInfo>> ListSessions(const CallOptions& options) override {
    const auto list = Call<v1::ListSessionsResponse>(method::kListSessions, v1::ListSessionsRequest(), options);
    if (!list.ok()) return list.status();
    std::vector<OpenSessionInfo> sessions;
    for (const v1::SessionInfo& info : list->sessions()) sessions.push_back(FromProto(info));
    return sessions;
  }

  absl::Status EvictSession(std::uint64_t id, const CallOptions& options) override {
    v1::EvictSessionRequest request;
    request.set_id(id);
    return CallOnce<v1::EvictSessionResponse>(method::kEvictSession, request, options).status();
  }

  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes) override {
    if (auto s = CheckProcess(); !s.ok()) return s;
    return attention_->AllocateBuffer(bytes);
  }

  absl::StatusOr<ModelList> ListAllModels(const CallOptions& options) override {
    ModelList list;
    v1::ListModelsRequest request;
    do {
      const auto page = Call<v1::ListModelsResponse>(method::kListModels, request, options);
      if (!page.ok()) return page.status();
      for (const v1::Model& model : page->models()) list.models.push_back(FromProto(model));
      AddFailed(*page, list.failed);
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return list;
  }

  absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options) override {
    absl::StatusOr<ModelList> list = ListAllModels(options);
    if (!list.ok()) return list.status();
    return std::move(list->models);
  }

  // Failed models are on the first page.
  absl::StatusOr<std::vector<FailedModel>> ListFailedModels(const CallOptions& options) override {
    v1::ListModelsRequest request;
    request.set_page_size(1);
    const auto page = Call<v1::ListModelsResponse>(method::kListModels, request, options);
    if (!page.ok()) return page.status();
    std::vector<FailedModel> failed;
    AddFailed(*page, failed);
    return failed;
  }

  absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version, bool include_values,
                                 const CallOptions& options) override {
    v1::GetModelRequest request;
    request.set_name(name);
    request.set_version(version);
    request.set_include_values(include_values);
    return ModelOf(Call<v1::GetModelResponse>(method::kGetModel, request, options));
  }

  absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name,
                                  const CallOptions& options) override {
    v1::LoadModelRequest request;
    request.set_path(path);
    request.set_name(name);
    return ModelOf(CallOnce<v1::LoadModelResponse>(method::kLoadModel, request, options));
  }

  absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options) override {
    v1::ReloadModelRequest request;
    request.set_name(name);
    return ModelOf(CallOnce<v1::ReloadModelResponse>(method::kReloadModel, request, options));
  }

  absl::Status UnloadModel(const std::string& name, const CallOptions& options) override {
    v1::UnloadModelRequest request;
    request.set_name(name);
    return CallOnce<v1::UnloadModelResponse>(method::kUnloadModel, request, options).status();
  }

  absl::StatusOr<Model> UploadTable(const std::string& model, const Table& table, bool replace,
                                    const CallOptions& options) override {
    v1::UploadTableRequest request;
    request.set_model(model);
    *request.mutable_table() = ToProto(table);
    request.set_replace(replace);
    return ModelOf(CallOnce<v1::UploadTableResponse>(method::kUploadTable, request, options));
  }

  absl::StatusOr<BiasReply> GetBias(const BiasRequest& request, const CallOptions& options) override {
    const auto response = Call<v1::GetBiasResponse>(method::kGetBias, ToProto(request), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options) override {
    const auto response = Call<v1::GetServerInfoResponse>(method::kGetServerInfo, v1::GetServerInfoRequest(), options);
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

 private:
  absl::StatusOr<std::shared_ptr<SessionStream>> StreamFor(const SessionRequest& request,
                                                           const CallOptions& options) const {
    // A datagram has no metadata.
    if (local_ != nullptr && options.metadata.empty()) {
      if (std::shared_ptr<SessionStream> stream = ConnectLocalSession(*local_, request, options)) {
        retry_->NoteConnected();
        return stream;
      }
    }
    return StartGrpcSession(retry_->channel, options);
  }

  template <typename Response>
  absl::StatusOr<Response> Attempt(const char* method, const google::protobuf::MessageLite& request,
                                   const CallOptions& options) const {
    Response response;
    if (auto s = CallMessage(retry_->channel, method, request, response, options); !s.ok()) return s;
    return response;
  }

  // For methods without side effects.
  template <typename Response>
  absl::StatusOr<Response> Call(const char* method, const google::protobuf::MessageLite& request,
                                const CallOptions& options) const {
    return Repeated<Response>(options, [&] { return Attempt<Response>(method, request, options); });
  }

  template <typename Result, typename AttemptOnce>
  absl::StatusOr<Result> Repeated(const CallOptions& options, const AttemptOnce& attempt) const {
    if (auto s = CheckProcess(); !s.ok()) return s;
    Tries tries(retry_, options);
    while (true) {
      absl::StatusOr<Result> result = attempt();
      if (result.ok()) {
        tries.Answered();
        return result;
      }
      if (auto end = tries.AwaitNext(result.status())) return *std::move(end);
    }
  }

  // For methods with side effects: after an error it is unknown whether the server began.
  template <typename Response>
  absl::StatusOr<Response> CallOnce(const char* method, const google::protobuf::MessageLite& request,
                                    const CallOptions& options) const {
    if (auto s = CheckProcess(); !s.ok()) return s;
    const bool connected = WaitUntilConnected(*retry_, options);
    // The connection may be lost before the call is sent. Then the call waits for another one, if its deadline limits
    // the wait.
    CallOptions waiting = options;
    if (connected && options.deadline != absl::InfiniteFuture()) waiting.wait_for_ready = true;
    return Attempt<Response>(method, request, waiting);
  }

  static void AddFailed(const v1::ListModelsResponse& page, std::vector<FailedModel>& failed) {
    for (const v1::FailedModel& model : page.failed_models()) {
      failed.push_back({model.name(), model.path(), model.reason()});
    }
  }

  template <typename Response>
  static absl::StatusOr<Model> ModelOf(const absl::StatusOr<Response>& response) {
    if (!response.ok()) return response.status();
    return FromProto(response->model());
  }

  const std::shared_ptr<RetryPolicy> retry_;
  const std::shared_ptr<AttentionCaller> attention_;
  const std::shared_ptr<LocalCalls> local_;
};

}  // namespace

std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<RetryPolicy> retry,
                                               std::shared_ptr<AttentionCaller> attention,
                                               std::shared_ptr<LocalCalls> local) {
  // Not deleted in a forked child: destroying a channel would shut down the parent's sockets.
  return std::shared_ptr<Connection>(new GrpcConnection(std::move(retry), std::move(attention), std::move(local)),
                                     [](GrpcConnection* connection) {
                                       if (!Forked()) delete connection;
                                     });
}

}  // namespace attnd::client
