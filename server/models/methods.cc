#include "server/models/methods.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "errors/field_error.h"
#include "errors/shown.h"
#include "server/models/bias_window.h"
#include "server/models/model_proto.h"
#include "server/models/page_token.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

using Snapshot = std::shared_ptr<const model::Model>;

constexpr std::int64_t kDefaultPageSize = 100;
// Bounds of the failed models in an answer: together below 1.5 MiB.
constexpr int kMaxFailedModels = 1000;
constexpr std::size_t kMaxShownBytes = 300;
constexpr std::size_t kMaxReasonBytes = 800;

void LogFailure(const char* change, absl::string_view name, const absl::Status& status) {
  spdlog::warn("not {} model {}: {}", change, absl::Utf8SafeCEscape(name), std::string(status.message()));
}

// Logs one line for each change of the loaded models, and for each attempt that failed.
void LogChange(const char* change, absl::string_view name, const absl::StatusOr<Snapshot>& outcome) {
  if (outcome.ok()) {
    const model::Model& model = **outcome;
    spdlog::info("{} model {} version {} from {} ({} tables, hash {})", change, model.name(), model.version(),
                 model.source(), model.contents().tables.size(), model.content_hash().substr(0, 12));
  } else {
    LogFailure(change, name, outcome.status());
  }
}

// The error of a call whose request has the model's name in `field`; the registry calls the field "model".
grpc::Status Refusal(absl::string_view field, const absl::Status& status) {
  return ToGrpc(errors::Renamed("model", field, status));
}

// Ends a call that changes a model, whose name is in `field`: logs the outcome and fills in the response.
template <typename Response>
grpc::Status FinishChange(const char* change, absl::string_view field, absl::string_view name,
                          const absl::StatusOr<Snapshot>& outcome, Response* response) {
  LogChange(change, name, outcome);
  if (!outcome.ok()) return Refusal(field, outcome.status());
  FillModel(**outcome, /*include_values=*/false, *response->mutable_model());
  return grpc::Status::OK;
}

void AddFailed(const std::vector<model::FailedModel>& failed, v1::ListModelsResponse& response) {
  response.set_failed_model_count(static_cast<std::int64_t>(failed.size()));
  for (const model::FailedModel& model : failed) {
    if (response.failed_models_size() == kMaxFailedModels) return;
    v1::FailedModel& proto = *response.add_failed_models();
    // File names may contain any bytes; proto3 strings must be UTF-8.
    proto.set_name(errors::Shown(model.name, kMaxShownBytes));
    proto.set_path(errors::Shown(model.path, kMaxShownBytes));
    proto.set_reason(errors::Shown(model.reason, kMaxReasonBytes));
  }
}

absl::Status List(const v1::ListModelsRequest& request, const model::Registry& registry, std::int64_t max_page_size,
                  v1::ListModelsResponse& response) {
  if (request.page_size() < 0 || request.page_size() > max_page_size) {
    return InvalidField("page_size", absl::StrCat("0 to ", max_page_size), request.page_size());
  }
  ATTND_ASSIGN_OR_RETURN(const std::string after, ParsePageToken(request.page_token()));
  const std::int64_t page_size =
      request.page_size() > 0 ? request.page_size() : std::min(kDefaultPageSize, max_page_size);
  const std::vector<Snapshot> models = registry.List(after, page_size + 1);
  if (request.page_token().empty()) AddFailed(registry.Failed(), response);
  for (const Snapshot& model : models) {
    if (response.models_size() == page_size) {
      response.set_next_page_token(MakePageToken(response.models().rbegin()->name()));
      break;
    }
    FillModel(*model, /*include_values=*/false, *response.add_models());
  }
  return absl::OkStatus();
}

std::int64_t ValueCount(const bias::T5Rule& rule) { return static_cast<std::int64_t>(rule.values.size()); }
std::int64_t ValueCount(const bias::AlibiRule& rule) { return static_cast<std::int64_t>(rule.slopes.size()); }
std::int64_t ValueCount(const bias::PerOffsetRule& rule) { return static_cast<std::int64_t>(rule.values.size()); }

// Bytes of the values of a model's tables in an answer, message and serialised form together.
std::int64_t ValuesBytes(const model::Model& model) {
  constexpr std::int64_t kValueBytes = 2 * sizeof(float);
  std::int64_t values = 0;
  for (const auto& [name, table] : model.contents().tables) {
    values += std::visit([](const auto& rule) { return ValueCount(rule); }, table.rule());
  }
  return values * kValueBytes;
}

absl::StatusOr<Snapshot> Upload(const v1::UploadTableRequest& request, model::Registry& registry,
                                std::int64_t max_table_values) {
  ATTND_ASSIGN_OR_RETURN(bias::BiasTable table, TableOf(request.table(), max_table_values, registry.NewTicket()));
  const std::string default_name = table.bidirectional() ? "encoder" : "decoder";
  const std::string& name = request.table().name().empty() ? default_name : request.table().name();
  return registry.Upload(request.model(), name, std::move(table), request.replace());
}

}  // namespace

grpc::Status ModelMethods::ListModels(const v1::ListModelsRequest* request, v1::ListModelsResponse* response) const {
  return ToGrpc(List(*request, registry_, limits_.max_page_size, *response));
}

grpc::Status ModelMethods::GetModel(const v1::GetModelRequest* request, v1::GetModelResponse* response) const {
  const absl::StatusOr<Snapshot> model = registry_.Find(request->name(), request->version());
  if (!model.ok()) return Refusal("name", model.status());
  FillModel(**model, request->include_values(), *response->mutable_model());
  return grpc::Status::OK;
}

grpc::Status ModelMethods::LoadModel(const v1::LoadModelRequest* request, v1::LoadModelResponse* response) const {
  const std::string& name = request->name().empty() ? request->path() : request->name();
  return FinishChange("loaded", "name", name, registry_.Load(request->name(), request->path()), response);
}

grpc::Status ModelMethods::ReloadModel(const v1::ReloadModelRequest* request, v1::ReloadModelResponse* response) const {
  return FinishChange("reloaded", "name", request->name(), registry_.Reload(request->name()), response);
}

grpc::Status ModelMethods::UnloadModel(const v1::UnloadModelRequest* request, v1::UnloadModelResponse*) const {
  const absl::Status status = registry_.Unload(request->name());
  if (!status.ok()) {
    LogFailure("unloaded", request->name(), status);
    return Refusal("name", status);
  }
  spdlog::info("unloaded model {}", request->name());
  return grpc::Status::OK;
}

grpc::Status ModelMethods::UploadTable(const v1::UploadTableRequest* request, v1::UploadTableResponse* response) const {
  return FinishChange("uploaded", "model", request->model(), Upload(*request, registry_, limits_.max_table_values),
                      response);
}

grpc::Status ModelMethods::GetBias(const v1::GetBiasRequest* request, v1::GetBiasResponse* response) const {
  const absl::StatusOr<Snapshot> model = registry_.Find(request->model(), request->version());
  if (!model.ok()) return ToGrpc(model.status());
  return ToGrpc(FillBiasWindow(*request, **model, limits_, *response));
}

std::int64_t ModelMethods::AnswerBytes(const v1::GetModelRequest& request) const {
  if (!request.include_values()) return 0;
  const absl::StatusOr<Snapshot> model = registry_.Find(request.name(), request.version());
  return model.ok() ? ValuesBytes(**model) : 0;
}

std::int64_t ModelMethods::AnswerBytes(const v1::GetBiasRequest& request) const {
  const absl::StatusOr<Snapshot> model = registry_.Find(request.model(), request.version());
  return model.ok() ? BiasWindowBytes(request, **model, limits_) : 0;
}

}  // namespace attnd::server
