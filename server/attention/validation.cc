#include "server/attention/validation.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "server/attention/bias.h"
#include "server/attention/masks.h"
#include "server/attention/shapes.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

absl::Status CheckRange(absl::string_view field, std::int64_t value, std::int64_t lowest, std::int64_t highest) {
  return Refusal(contract::CheckRange(field, value, lowest, highest));
}

// Sets the sizes, with defaults for absent ones.
absl::Status SetSizes(const Request& request, const Limits& limits, kernel::Attention& attention) {
  attention.batch = request.batch();
  attention.heads = request.heads();
  attention.kv_heads = request.kv_heads() == 0 ? request.heads() : request.kv_heads();
  attention.query_length = request.query_length();
  attention.key_length = request.key_length();
  attention.head_dim = request.head_dim();
  attention.value_head_dim = request.value_head_dim() == 0 ? request.head_dim() : request.value_head_dim();
  ATTND_RETURN_IF_ERROR(CheckRange("batch", attention.batch, 1, limits.max_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("heads", attention.heads, 1, limits.max_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("kv_heads", attention.kv_heads, 1, attention.heads));
  ATTND_RETURN_IF_ERROR(CheckRange("query_length", attention.query_length, 1, limits.max_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("key_length", attention.key_length, 1, limits.max_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("head_dim", attention.head_dim, 1, limits.max_head_dim));
  ATTND_RETURN_IF_ERROR(CheckRange("value_head_dim", attention.value_head_dim, 1, limits.max_head_dim));
  return Refusal(contract::CheckKeyHeads(attention.heads, attention.kv_heads));
}

// Sets the bias and the mask, whose default follows from the table.
absl::Status SetBias(const Request& request, const model::Model* model, ValidAttention& valid) {
  kernel::Mask of_table = kernel::Mask::kNone;
  if (model != nullptr) {
    ATTND_ASSIGN_OR_RETURN(const bias::BiasTable* const table, TableOf(request, *model));
    valid.bias = ViewOf(table->offset_form(), request.first_head());
    if (!table->bidirectional()) of_table = kernel::Mask::kCausal;
  }
  return SetMask(request, of_table, valid.attention);
}

absl::Status SetScale(const Request& request, kernel::Attention& attention) {
  attention.scale = request.has_scale() ? request.scale() : 1.0F;
  return Refusal(contract::CheckScale(attention.scale));
}

// Locates q, k and v.
absl::Status SetTensors(const Request& request, const Limits& limits, const RequestTensors& sent, TensorPlaces& places,
                        kernel::Attention& a) {
  const std::int64_t kv_batch = request.kv_batch() == 0 ? a.batch : request.kv_batch();
  ATTND_RETURN_IF_ERROR(CheckRange("kv_batch", kv_batch, 1, limits.max_dim));
  const auto shared = [](bool has, const v1::SharedTensor& tensor) { return has ? &tensor : nullptr; };
  ATTND_RETURN_IF_ERROR(places.Set("q", sent.q, shared(request.has_q_shared(), request.q_shared()), &SharedParts::q,
                                   {a.batch, a.heads, a.query_length, a.head_dim}, a.q));
  ATTND_RETURN_IF_ERROR(places.Set("k", sent.k, shared(request.has_k_shared(), request.k_shared()), &SharedParts::k,
                                   {kv_batch, a.kv_heads, a.key_length, a.head_dim}, a.k));
  return places.Set("v", sent.v, shared(request.has_v_shared(), request.v_shared()), &SharedParts::v,
                    {kv_batch, a.kv_heads, a.key_length, a.value_head_dim}, a.v);
}

}  // namespace

absl::Status CheckSent(const ValidAttention& valid, std::int64_t max_sent_bytes) {
  const std::int64_t output = valid.sent_output_bytes(), log_sum_exp = valid.sent_log_sum_exp_bytes();
  if (output + log_sum_exp <= max_sent_bytes) return absl::OkStatus();
  return FieldError(absl::StatusCode::kResourceExhausted, output > max_sent_bytes ? "output" : "log_sum_exp",
                    absl::StrCat("at most ", max_sent_bytes, " bytes of output and log-sum-exp in an answer by a local",
                                 " socket (output_shared and log_sum_exp_shared, or gRPC, have room for more)"),
                    absl::StrCat(output, " and ", log_sum_exp, " bytes"));
}

absl::StatusOr<ValidAttention> AttentionValidator::Validate(const Request& request, const RequestTensors& tensors,
                                                            const model::Model* model) const {
  ValidAttention valid{};
  kernel::Attention& a = valid.attention;
  ATTND_RETURN_IF_ERROR(SetSizes(request, limits_, a));
  ATTND_RETURN_IF_ERROR(SetBias(request, model, valid));
  ATTND_ASSIGN_OR_RETURN(valid.output_dtype,
                         SetDtypes(request.dtype(), request.output_dtype(), request.product_precision(), a));
  ATTND_RETURN_IF_ERROR(CheckLayout(request.layout()));
  ATTND_RETURN_IF_ERROR(SetScale(request, a));
  ATTND_RETURN_IF_ERROR(SetSequences(request, a));
  TensorPlaces places(request.layout(), memory_, valid.shared);
  ATTND_RETURN_IF_ERROR(SetTensors(request, limits_, tensors, places, a));
  ATTND_ASSIGN_OR_RETURN(const ResultBytes result, SetResult(request.layout(), request.return_log_sum_exp(), limits_,
                                                             {a.batch, a.heads, a.query_length, a.value_head_dim}, a));
  valid.output_bytes = result.output;
  valid.log_sum_exp_bytes = result.log_sum_exp;
  ATTND_RETURN_IF_ERROR(PlaceRows(request, a, valid.places));
  if (request.has_output_shared()) ATTND_RETURN_IF_ERROR(places.SetOutput(request.output_shared(), valid.output_bytes));
  if (request.has_log_sum_exp_shared())
    ATTND_RETURN_IF_ERROR(places.SetLogSumExp(request.log_sum_exp_shared(), valid.log_sum_exp_bytes));
  return valid;
}

}  // namespace attnd::server
