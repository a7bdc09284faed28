#include "server/models/service.h"

#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

// What gRPC keeps of a call that waits, beside its message.
constexpr std::int64_t kCallBytes = 16 << 10;

template <typename Request, typename Response>
using Method = grpc::Status (ModelMethods::*)(Request*, Response*) const;

template <typename Request>
grpc::Status Parse(const grpc::ByteBuffer& request, Request* parsed) {
  grpc::ByteBuffer bytes = request;  // parsing takes its own reference away
  if (grpc::SerializationTraits<Request>::Deserialize(&bytes, parsed).ok()) return grpc::Status::OK;
  return ToGrpc(InvalidField("request", absl::StrCat("an ", Request::descriptor()->full_name()), "malformed protobuf"));
}

// Calls the method, and serialises. Request is const unless the method takes it apart.
template <typename Request, typename Response>
grpc::Status Answer(const ModelMethods& methods, Method<Request, Response> method, Request& request,
                    grpc::ByteBuffer* response) {
  Response answer;
  if (grpc::Status status = (methods.*method)(&request, &answer); !status.ok()) return status;
  bool own = false;
  return grpc::SerializationTraits<Response>::Serialize(answer, response, &own);
}

// A call that is answered by an executor's thread.
template <typename Request, typename Response>
class SlowCall final : public grpc::ServerUnaryReactor {
 public:
  SlowCall(Executor& executor, const ModelMethods& methods, Method<Request, Response> method,
           const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
      : executor_(executor) {
    const auto run = [this, &methods, method, &request, response] {
      std::remove_const_t<Request> parsed;
      grpc::Status status = Parse(request, &parsed);
      if (status.ok()) status = Answer<Request, Response>(methods, method, parsed, response);
      result_bytes_ = static_cast<std::int64_t>(response->Length());
      executor_.Hold(result_bytes_);
      Finish(status);  // after this the reactor may be gone
    };
    const std::int64_t bytes = kCallBytes + static_cast<std::int64_t>(request.Length());
    ticket_ = executor.Submit(bytes, run);
    if (ticket_.has_value()) return;
    Finish(ToGrpc(FieldError(absl::StatusCode::kResourceExhausted, "model calls",
                             absl::StrCat("at most ", executor.max_bytes(), " bytes of them waiting"),
                             absl::StrCat(bytes, " bytes more"))));
  }

  // gRPC calls this at the deadline too. A call that runs already is answered as if nothing had happened.
  void OnCancel() override {
    if (ticket_.has_value() && executor_.Drop(*ticket_)) Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    executor_.Release(result_bytes_);
    delete this;
  }

 private:
  Executor& executor_;
  std::optional<std::uint64_t> ticket_;
  std::int64_t result_bytes_ = 0;
};

template <typename Request, typename Response>
grpc::ServerUnaryReactor* Later(Executor& executor, const ModelMethods& methods, Method<Request, Response> method,
                                const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  return new SlowCall<Request, Response>(executor, methods, method, request, response);
}

}  // namespace

ModelService::ModelService(const Limits& limits, model::Registry& registry)
    : methods_(limits, registry),
      files_(kFileThreads, MaxWaitingBytes(limits)),
      tables_(kTableThreads, MaxWaitingBytes(limits)) {}

std::int64_t ModelService::MaxWaitingBytes(const Limits& limits) {
  // The largest request, and some thousand small ones.
  return limits.max_request_bytes + (std::int64_t{64} << 20);
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest* request,
                                                   v1::ListModelsResponse* response) {
  return FinishNow(*context, methods_.ListModels(request, response));
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  v1::GetModelRequest parsed;
  if (const grpc::Status status = Parse(*request, &parsed); !status.ok()) return FinishNow(*context, status);
  if (parsed.include_values()) return Later(tables_, methods_, &ModelMethods::GetModel, *request, response);
  return FinishNow(*context, Answer(methods_, &ModelMethods::GetModel, std::as_const(parsed), response));
}

grpc::ServerUnaryReactor* ModelService::LoadModel(grpc::CallbackServerContext* /*context*/,
                                                  const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(files_, methods_, &ModelMethods::LoadModel, *request, response);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* /*context*/,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(tables_, methods_, &ModelMethods::UnloadModel, *request, response);
}

grpc::ServerUnaryReactor* ModelService::ReloadModel(grpc::CallbackServerContext* /*context*/,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(files_, methods_, &ModelMethods::ReloadModel, *request, response);
}

grpc::ServerUnaryReactor* ModelService::UploadTable(grpc::CallbackServerContext* /*context*/,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(tables_, methods_, &ModelMethods::UploadTable, *request, response);
}

grpc::ServerUnaryReactor* ModelService::GetBias(grpc::CallbackServerContext* /*context*/,
                                                const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(tables_, methods_, &ModelMethods::GetBias, *request, response);
}

}  // namespace attnd::server
