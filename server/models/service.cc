#include "server/models/service.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "memory/no_memory.h"
#include "server/rpc/admission.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/on_arena.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

// What gRPC holds for a waiting call, besides its message.
constexpr std::int64_t kCallBytes = 16 << 10;
// The message, its contiguous copy, and its parsed fields.
constexpr std::int64_t kCopies = 3;

template <typename Request, typename Response>
using Method = grpc::Status (ModelMethods::*)(const Request*, Response*) const;

// Parses from contiguous bytes: protobuf then allocates a list of numbers once, and the arena does not fill with the
// list's outgrown buffers.
template <typename Request>
grpc::Status Parse(const grpc::ByteBuffer& request, Request& parsed) {
  grpc::Slice bytes;
  if (!request.TrySingleSlice(&bytes).ok() && !request.DumpToSingleSlice(&bytes).ok()) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "the request cannot be read");
  }
  if (parsed.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) return grpc::Status::OK;
  return ToGrpc(InvalidField("request", absl::StrCat("an ", Request::descriptor()->full_name()), "malformed protobuf"));
}

// Calls the method and serialises its response.
template <typename Request, typename Response>
grpc::Status Answer(const ModelMethods& methods, Method<Request, Response> method, const Request& request,
                    grpc::ByteBuffer* response) {
  OnArena<Response> answer;
  if (grpc::Status status = (methods.*method)(&request, &*answer); !status.ok()) return status;
  bool own = false;
  return grpc::SerializationTraits<Response>::Serialize(*answer, response, &own);
}

template <typename Request, typename Response>
grpc::Status ParseAndAnswer(const ModelMethods& methods, Method<Request, Response> method,
                            const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  OnArena<Request> parsed;
  if (grpc::Status status = Parse(request, *parsed); !status.ok()) return status;
  return Answer(methods, method, *parsed, response);
}

// Runs `call`, which answers a call, and returns its status. Never throws.
grpc::Status Guarded(absl::FunctionRef<grpc::Status()> call, grpc::ByteBuffer* response) {
  grpc::Status status;
  const absl::Status done = memory::CatchNoMemoryIn([&] { status = call(); });
  if (done.ok()) return status;
  response->Clear();
  return ToGrpc(done);
}

}  // namespace

template <typename Request, typename Response>
class ModelService::SlowCall final : public grpc::ServerUnaryReactor {
 public:
  using Method = server::Method<Request, Response>;

  // Holds its reservation until gRPC is done with the call.
  SlowCall(ModelService& service, Executor& executor, Method method, std::shared_ptr<memory::Account> account,
           grpc::CallbackServerContext& context, const grpc::ByteBuffer& request, grpc::ByteBuffer* response)
      : service_(service), executor_(executor), account_(std::move(account)), context_(context) {
    if (const absl::Status status = Take(kCallBytes + kCopies * Length(request)); !status.ok()) {
      AddPushback(context, status);
      Finish(ToGrpc(status));
      return;
    }
    number_ = executor.Submit([this, method, &request, response] {
      grpc::Status status = Guarded([&] { return Run(method, request, response); }, response);
      GiveBackBut(kCallBytes + Length(request) + Length(*response));
      service_.stalls_.Begin(write_, context_.c_call(), Length(*response));
      Finish(std::move(status));  // after this the reactor may be gone
    });
  }

  // gRPC calls this at the deadline too. A call that is already running is answered as usual.
  void OnCancel() override {
    if (number_.has_value() && executor_.Drop(*number_)) Finish(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    service_.stalls_.End(write_);
    delete this;
  }

 private:
  static std::int64_t Length(const grpc::ByteBuffer& bytes) { return static_cast<std::int64_t>(bytes.Length()); }

  absl::Status Take(std::int64_t bytes) {
    absl::StatusOr<memory::Ticket> more = Admit(service_.ledger_, account_, bytes, ticket_.bytes());
    if (!more.ok()) return more.status();
    ticket_.Add(*std::move(more));
    return absl::OkStatus();
  }

  grpc::Status Run(Method method, const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
    OnArena<Request> parsed;
    if (grpc::Status status = Parse(request, *parsed); !status.ok()) return status;
    // Lists that arrive in many parts take more memory than their length on the wire.
    const std::int64_t more = static_cast<std::int64_t>(parsed.allocated_bytes()) - Length(request);
    const std::int64_t answer = service_.methods_.AnswerBytes(*parsed);
    if (const absl::Status taken = Take(std::max<std::int64_t>(0, more) + answer); !taken.ok()) {
      AddPushback(context_, taken);
      return ToGrpc(taken);
    }
    return Answer(service_.methods_, method, *parsed, response);
  }

  void GiveBackBut(std::int64_t left) { ticket_.GiveBack(std::max<std::int64_t>(0, ticket_.bytes() - left)); }

  ModelService& service_;
  Executor& executor_;
  const std::shared_ptr<memory::Account> account_;
  grpc::CallbackServerContext& context_;  // gRPC's, until OnDone
  StallWatch::Transfer write_;
  std::optional<std::uint64_t> number_;
  memory::Ticket ticket_;
};

template <typename Request, typename Response>
grpc::ServerUnaryReactor* ModelService::Later(Executor& executor, Method<Request, Response> method,
                                              grpc::CallbackServerContext& context, const grpc::ByteBuffer& request,
                                              grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* call = nullptr;
  const absl::Status queued = memory::CatchNoMemoryIn([&] {
    call =
        new SlowCall<Request, Response>(*this, executor, method, peers_.AccountOf(context), context, request, response);
  });
  return queued.ok() ? call : FinishNow(context, ToGrpc(queued));
}

ModelService::ModelService(const Limits& limits, model::Registry& registry, memory::Ledger& ledger, StallWatch& stalls,
                           std::vector<AddressRange> proxies)
    : methods_(limits, registry),
      ledger_(ledger),
      stalls_(stalls),
      peers_(ledger, std::move(proxies)),
      files_(kFileThreads),
      tables_(kTableThreads) {}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return FinishNow(
      *context,
      Guarded([&] { return ParseAndAnswer(methods_, &ModelMethods::ListModels, *request, response); }, response));
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  bool later = false;
  grpc::Status status = Guarded(
      [&] {
        OnArena<v1::GetModelRequest> parsed;
        if (grpc::Status parse = Parse(*request, *parsed); !parse.ok()) return parse;
        later = parsed->include_values();
        return later ? grpc::Status::OK : Answer(methods_, &ModelMethods::GetModel, *parsed, response);
      },
      response);
  if (later) return Later(tables_, &ModelMethods::GetModel, *context, *request, response);
  return FinishNow(*context, std::move(status));
}

grpc::ServerUnaryReactor* ModelService::LoadModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return Later(files_, &ModelMethods::LoadModel, *context, *request, response);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(tables_, &ModelMethods::UnloadModel, *context, *request, response);
}

grpc::ServerUnaryReactor* ModelService::ReloadModel(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(files_, &ModelMethods::ReloadModel, *context, *request, response);
}

grpc::ServerUnaryReactor* ModelService::UploadTable(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return Later(tables_, &ModelMethods::UploadTable, *context, *request, response);
}

grpc::ServerUnaryReactor* ModelService::GetBias(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) {
  return Later(tables_, &ModelMethods::GetBias, *context, *request, response);
}

}  // namespace attnd::server
