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

// Sizes, with the defaults of those that may be absent.
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

// The bias, and the mask that follows from its table.
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

// Whether this server takes shared memory at all.
absl::Status CheckShares(const SharedMemory* memory, absl::string_view field) {
  if (memory != nullptr) return absl::OkStatus();
  return FieldError(absl::StatusCode::kFailedPrecondition, field,
                    "none (this server shares no memory: it has no unix: address, or --noshared_memory)",
                    "a tensor in shared memory");
}

// Whether `written` has no byte of any of the others.
bool ApartFrom(std::initializer_list<const SharedBytes*> others, const SharedBytes& written) {
  return std::all_of(others.begin(), others.end(), [&written](const SharedBytes* other) {
    return other->region != written.region || written.data + written.size <= other->data ||
           other->data + other->size <= written.data;
  });
}

// Tells where one tensor is: sent, or in shared memory.
class TensorSetter {
 public:
  TensorSetter(const Request& request, const SharedMemory* memory, ValidAttention& valid)
      : layout_(request.layout()), memory_(memory), valid_(valid) {
    if (request.has_q_shared() || request.has_k_shared() || request.has_v_shared() || request.has_output_shared() ||
        request.has_log_sum_exp_shared()) {
      valid.shared = std::make_shared<SharedParts>();
    }
  }

  absl::Status Set(absl::string_view field, const TensorBytes& sent, const v1::SharedTensor* shared,
                   SharedParts::Part SharedParts::*part, const Shape& shape, kernel::TensorView& view) {
    ATTND_ASSIGN_OR_RETURN(const std::int64_t expected, ExpectedBytes(field, shape, view.dtype));
    SetStrides(layout_, shape, view);
    if (shared == nullptr) {
      view.segments = sent.segments.data();
      view.segment_count = static_cast<std::int64_t>(sent.segments.size());
      return CheckBytes(field, expected, shape, view.dtype, sent.size);
    }
    const std::string shared_field = absl::StrCat(field, "_shared");
    ATTND_RETURN_IF_ERROR(CheckShares(memory_, shared_field));
    if (sent.size != 0) {
      return InvalidField(field, absl::StrCat("nothing beside ", shared_field), absl::StrCat(sent.size, " bytes"));
    }
    SharedParts::Part& place = valid_.shared.get()->*part;
    ATTND_ASSIGN_OR_RETURN(place.bytes, memory_->Resolve(shared_field, *shared, static_cast<std::size_t>(expected)));
    place.segment = {place.bytes.data, place.bytes.size};
    view.segments = &place.segment;
    view.segment_count = 1;
    return absl::OkStatus();
  }

  // Call after q, k and v. An output over them would be written while these are read.
  absl::Status SetOutput(const v1::SharedTensor& shared) {
    SharedParts& parts = *valid_.shared;
    ATTND_RETURN_IF_ERROR(CheckShares(memory_, "output_shared"));
    ATTND_ASSIGN_OR_RETURN(parts.output,
                           memory_->Resolve("output_shared", shared, static_cast<std::size_t>(valid_.output_bytes)));
    if (ApartFrom({&parts.q.bytes, &parts.k.bytes, &parts.v.bytes}, parts.output)) return absl::OkStatus();
    return InvalidField("output_shared.offset", "bytes apart from q, k and v", shared.offset());
  }

  // Call last, likewise. The kernel writes floats, each with one store.
  absl::Status SetLogSumExp(const v1::SharedTensor& shared) {
    SharedParts& parts = *valid_.shared;
    ATTND_RETURN_IF_ERROR(CheckShares(memory_, "log_sum_exp_shared"));
    if (valid_.log_sum_exp_bytes == 0) {
      return InvalidField("log_sum_exp_shared", "none without return_log_sum_exp", "a place in shared memory");
    }
    if (shared.offset() % alignof(float) != 0) {
      return InvalidField("log_sum_exp_shared.offset", absl::StrCat("a multiple of ", alignof(float)), shared.offset());
    }
    ATTND_ASSIGN_OR_RETURN(parts.log_sum_exp, memory_->Resolve("log_sum_exp_shared", shared,
                                                               static_cast<std::size_t>(valid_.log_sum_exp_bytes)));
    if (ApartFrom({&parts.q.bytes, &parts.k.bytes, &parts.v.bytes, &parts.output}, parts.log_sum_exp)) {
      return absl::OkStatus();
    }
    return InvalidField("log_sum_exp_shared.offset", "bytes apart from q, k, v and the output", shared.offset());
  }

 private:
  const v1::Layout layout_;
  const SharedMemory* const memory_;
  ValidAttention& valid_;
};

// q, k and v.
absl::Status SetTensors(const Request& request, const Limits& limits, const RequestTensors& sent, TensorSetter& setter,
                        kernel::Attention& a) {
  const std::int64_t kv_batch = request.kv_batch() == 0 ? a.batch : request.kv_batch();
  ATTND_RETURN_IF_ERROR(CheckRange("kv_batch", kv_batch, 1, limits.max_dim));
  const auto shared = [](bool has, const v1::SharedTensor& tensor) { return has ? &tensor : nullptr; };
  ATTND_RETURN_IF_ERROR(setter.Set("q", sent.q, shared(request.has_q_shared(), request.q_shared()), &SharedParts::q,
                                   {a.batch, a.heads, a.query_length, a.head_dim}, a.q));
  ATTND_RETURN_IF_ERROR(setter.Set("k", sent.k, shared(request.has_k_shared(), request.k_shared()), &SharedParts::k,
                                   {kv_batch, a.kv_heads, a.key_length, a.head_dim}, a.k));
  return setter.Set("v", sent.v, shared(request.has_v_shared(), request.v_shared()), &SharedParts::v,
                    {kv_batch, a.kv_heads, a.key_length, a.value_head_dim}, a.v);
}

}  // namespace

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
  TensorSetter setter(request, memory_, valid);
  ATTND_RETURN_IF_ERROR(SetTensors(request, limits_, tensors, setter, a));
  ATTND_ASSIGN_OR_RETURN(const ResultBytes result, SetResult(request.layout(), request.return_log_sum_exp(), limits_,
                                                             {a.batch, a.heads, a.query_length, a.value_head_dim}, a));
  valid.output_bytes = result.output;
  valid.log_sum_exp_bytes = result.log_sum_exp;
  ATTND_RETURN_IF_ERROR(PlaceRows(request, a, valid.places));
  if (request.has_output_shared()) ATTND_RETURN_IF_ERROR(setter.SetOutput(request.output_shared()));
  if (request.has_log_sum_exp_shared()) ATTND_RETURN_IF_ERROR(setter.SetLogSumExp(request.log_sum_exp_shared()));
  return valid;
}

}  // namespace attnd::server
