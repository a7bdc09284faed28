#include "server/attention/bias.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

// Checks that the table has the request's heads: all of them, or those from first_head on.
absl::Status CheckHeads(const Request& request, const bias::BiasTable& table, absl::string_view table_name,
                        absl::string_view model_name) {
  const std::string owner = absl::StrCat("table \"", table_name, "\" of model \"", model_name, "\"");
  // For a piece, check the heads of the whole call.
  const std::int64_t taken = request.has_first_head() ? request.table_heads() : request.heads();
  if (taken != 0 && taken != table.heads()) {
    return InvalidField("heads", absl::StrCat(table.heads(), " (the heads of ", owner, "), or first_head to be set"),
                        taken);
  }
  if (!request.has_first_head()) return absl::OkStatus();
  if (request.heads() > table.heads()) {
    return InvalidField("heads", absl::StrCat("at most ", table.heads(), " (the heads of ", owner, ")"),
                        request.heads());
  }
  return Refusal(contract::CheckRange("first_head", request.first_head(), 0, table.heads() - request.heads()));
}

}  // namespace

absl::Status CheckBias(const Request& request) {
  switch (request.bias()) {
    case v1::BIAS_UNSPECIFIED:
      return absl::OkStatus();
    case v1::BIAS_NONE:
      return Refusal(contract::CheckNoModel(
          {.model = request.model(),
           .version = request.version(),
           .table = request.table(),
           .first_head = request.has_first_head() ? std::optional(request.first_head()) : std::nullopt,
           .table_heads = request.table_heads()}));
    default:
      return InvalidField("bias", contract::kBiases, static_cast<int>(request.bias()));
  }
}

absl::StatusOr<const bias::BiasTable*> TableOf(const Request& request, const model::Model& model) {
  ATTND_ASSIGN_OR_RETURN(const model::Model::Found found, model.FindTable(request.table()));
  ATTND_RETURN_IF_ERROR(CheckHeads(request, *found.table, std::string(found.name), model.name()));
  return found.table;
}

kernel::BiasView ViewOf(const bias::OffsetForm& form, std::int64_t first_head) {
  const std::int64_t head_stride = form.max_offset - form.min_offset + 1;
  const auto from_head = [first_head](const std::vector<float>& per_head) {
    return per_head.empty() ? nullptr : per_head.data() + first_head;
  };
  return {
      .values = form.values.data() + first_head * head_stride,
      .head_stride = head_stride,
      .min_offset = form.min_offset,
      .max_offset = form.max_offset,
      .constant = from_head(form.constant),
      .low_value = from_head(form.low_value),
      .high_slope = from_head(form.high_slope),
      .low_slope = from_head(form.low_slope),
  };
}

}  // namespace attnd::server
