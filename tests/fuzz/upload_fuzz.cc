// Uploads to a registry with small limits. The input is a row of UploadTableRequests, each after a byte (its lowest
// bit: unload the model instead; the next: hold the version before) and two bytes of its size.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "input.h"
#include "server/models/methods.h"
#include "server/models/model_proto.h"
#include "server/rpc/status.h"
#include "spdlog/spdlog.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

using fuzz::Check;
using Snapshot = std::shared_ptr<const model::Model>;

constexpr std::int64_t kMaxModelBytes = 64 << 10;
constexpr std::int64_t kMaxTotalBytes = 96 << 10;
constexpr std::int64_t kMaxModels = 3;

Limits SmallLimits() {
  Limits limits;
  limits.max_table_values = 1 << 12;
  return limits;
}

model::RegistryOptions SmallRegistry() {
  model::RegistryOptions options;
  options.max_models = kMaxModels;
  options.max_table_values = SmallLimits().max_table_values;
  options.max_model_bytes = kMaxModelBytes;
  options.max_total_model_bytes = kMaxTotalBytes;
  return options;
}

const google::protobuf::RepeatedField<float>& ValuesOf(const v1::Table& table) {
  if (table.has_t5()) return table.t5().values();
  return table.has_alibi() ? table.alibi().slopes() : table.per_offset().values();
}

// The uploaded table is in the model, to the bit.
void CheckUploaded(const v1::UploadTableRequest& sent, const v1::Model& model) {
  const std::string name = !sent.table().name().empty()   ? sent.table().name()
                           : sent.table().bidirectional() ? "encoder"
                                                          : "decoder";
  for (const v1::Table& table : model.tables()) {
    if (table.name() != name) continue;
    Check(table.heads() == sent.table().heads() && table.rule_case() == sent.table().rule_case(),
          "the rule is the one sent");
    Check(table.bidirectional() == sent.table().bidirectional(), "the direction is the one sent");
    const auto& values = ValuesOf(table);
    const auto& expected = ValuesOf(sent.table());
    Check(values.size() == expected.size() &&
              std::memcmp(values.data(), expected.data(), sizeof(float) * static_cast<std::size_t>(values.size())) == 0,
          "the values are those sent");
    return;
  }
  Check(false, "the table is in the model");
}

// All that is held is what the current versions hold.
void CheckBytes(const model::Registry& registry, bool exactly) {
  std::int64_t sum = 0;
  for (const Snapshot& model : registry.List("", kMaxModels + 1)) {
    Check(model->contents().bytes() <= kMaxModelBytes, "a model is within max_model_bytes");
    sum += model->contents().bytes();
  }
  Check(registry.table_bytes() <= kMaxTotalBytes, "all are within max_total_model_bytes");
  Check(exactly ? registry.table_bytes() == sum : registry.table_bytes() >= sum, "what is held is counted, once each");
}

void CheckRefusal(const grpc::Status& status) {
  const grpc::StatusCode code = status.error_code();
  Check(code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::ALREADY_EXISTS ||
            code == grpc::StatusCode::RESOURCE_EXHAUSTED || code == grpc::StatusCode::NOT_FOUND,
        "an upload is refused with a code of its own");
  Check(!status.error_message().empty() && status.error_message().size() < 2000, "a refusal has words, and few");
  Check(!status.error_details().empty(), "a refusal has details");
}

void Run(fuzz::Input input) {
  model::Registry registry(SmallRegistry());
  const ModelMethods methods(SmallLimits(), registry);
  std::vector<Snapshot> held;
  while (!input.empty()) {
    const auto what = input.Take<std::uint8_t>();
    const absl::string_view bytes = input.Block();
    v1::UploadTableRequest request;
    if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) continue;
    if ((what & 2) != 0 && held.size() < 4) {
      if (auto model = registry.Find(request.model()); model.ok()) held.push_back(*std::move(model));
    }
    if ((what & 1) != 0) {
      v1::UnloadModelRequest unload;
      unload.set_name(request.model());
      v1::UnloadModelResponse unloaded;
      if (const grpc::Status status = methods.UnloadModel(&unload, &unloaded); !status.ok()) CheckRefusal(status);
    } else {
      const std::int64_t before = registry.table_bytes();
      v1::UploadTableResponse response;
      const grpc::Status status = methods.UploadTable(&request, &response);
      if (status.ok()) {
        const auto model = registry.Find(request.model(), response.model().version());
        Check(model.ok(), "what was uploaded is there");
        v1::Model shown;
        FillModel(**model, /*include_values=*/true, shown);
        CheckUploaded(request, shown);
      } else {
        CheckRefusal(status);
        Check(registry.table_bytes() == before, "a refused upload holds nothing");
      }
    }
    CheckBytes(registry, held.empty());
  }
  held.clear();
  CheckBytes(registry, /*exactly=*/true);
  for (const Snapshot& model : registry.List("", kMaxModels + 1))
    Check(registry.Unload(model->name()).ok(), "unloaded");
  Check(registry.table_bytes() == 0, "nothing is held without models");
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const attnd::server::SilentProtobuf silent;
  spdlog::set_level(spdlog::level::off);
  attnd::server::Run(attnd::fuzz::Input(data, size));
  return 0;
}
