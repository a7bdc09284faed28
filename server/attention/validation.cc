#include "server/attention/validation.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "server/attention/bias.h"
#include "server/attention/dtype.h"
#include "server/attention/masks.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "tensor/checked_size.h"

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

// `out.dtype` and the dtype of q, k and v.
absl::Status SetDtypes(const Request& request, ValidAttention& valid) {
  kernel::Attention& attention = valid.attention;
  const std::optional<tensor::DType> dtype = EngineDtype(request.dtype());
  if (!dtype.has_value()) return InvalidField("dtype", contract::kDtypes, static_cast<int>(request.dtype()));
  attention.q.dtype = attention.k.dtype = attention.v.dtype = *dtype;
  const bool same = request.output_dtype() == v1::DTYPE_UNSPECIFIED;
  valid.output_dtype = same ? request.dtype() : request.output_dtype();
  const std::optional<tensor::DType> output_dtype = EngineDtype(valid.output_dtype);
  if (!output_dtype.has_value()) {
    return InvalidField("output_dtype", contract::kDtypes, static_cast<int>(request.output_dtype()));
  }
  attention.out.dtype = *output_dtype;
  switch (request.product_precision()) {
    case v1::PRODUCT_PRECISION_UNSPECIFIED: {
      const bool all_bf16 = *dtype == tensor::DType::kBF16 && *output_dtype == tensor::DType::kBF16;
      attention.product_precision = all_bf16 ? kernel::ProductPrecision::kBF16 : kernel::ProductPrecision::kF32;
      return absl::OkStatus();
    }
    case v1::PRODUCT_PRECISION_FP32:
      attention.product_precision = kernel::ProductPrecision::kF32;
      return absl::OkStatus();
    case v1::PRODUCT_PRECISION_BF16:
      attention.product_precision =
          *dtype == tensor::DType::kBF16 ? kernel::ProductPrecision::kBF16 : kernel::ProductPrecision::kF32;
      return absl::OkStatus();
    default:
      return InvalidField("product_precision", "PRODUCT_PRECISION_FP32, PRODUCT_PRECISION_BF16 or unset",
                          static_cast<int>(request.product_precision()));
  }
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

// A tensor's shape, named for messages: [batch, heads, rows, dim] whatever the layout.
struct Shape {
  std::int64_t batch;
  std::int64_t heads;
  std::int64_t rows;
  std::int64_t dim;
};

std::optional<std::int64_t> BytesOf(const Shape& shape, tensor::DType dtype) {
  const std::int64_t element = static_cast<std::int64_t>(tensor::SizeOf(dtype));
  return tensor::CheckedProduct({shape.batch, shape.heads, shape.rows, shape.dim, element});
}

std::string Described(const Shape& shape, tensor::DType dtype) {
  return absl::StrCat("batch ", shape.batch, " x heads ", shape.heads, " x rows ", shape.rows, " x dim ", shape.dim,
                      " of ", tensor::NameOf(dtype));
}

// Fills in the strides of `view`, a TensorView or an OutputView.
template <typename View>
void SetStrides(v1::Layout layout, const Shape& shape, View& view) {
  const bool sequence_first = layout == v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM;
  view.batch_stride = shape.heads * shape.rows * shape.dim;
  view.head_stride = sequence_first ? shape.dim : shape.rows * shape.dim;
  view.row_stride = sequence_first ? shape.heads * shape.dim : shape.dim;
}

absl::Status CheckBytes(absl::string_view field, std::int64_t expected, const Shape& shape, tensor::DType dtype,
                        std::size_t got) {
  if (static_cast<std::uint64_t>(expected) == got) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(expected, " bytes (", Described(shape, dtype), ")"),
                      absl::StrCat(got, " bytes"));
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
    const std::optional<std::int64_t> expected = BytesOf(shape, view.dtype);
    if (!expected.has_value()) {
      return InvalidField(field, "a size that fits 63 bits", Described(shape, view.dtype));
    }
    SetStrides(layout_, shape, view);
    if (shared == nullptr) {
      view.segments = sent.segments.data();
      view.segment_count = static_cast<std::int64_t>(sent.segments.size());
      return CheckBytes(field, *expected, shape, view.dtype, sent.size);
    }
    const std::string shared_field = absl::StrCat(field, "_shared");
    ATTND_RETURN_IF_ERROR(CheckShares(memory_, shared_field));
    if (sent.size != 0) {
      return InvalidField(field, absl::StrCat("nothing beside ", shared_field), absl::StrCat(sent.size, " bytes"));
    }
    SharedParts::Part& place = valid_.shared.get()->*part;
    ATTND_ASSIGN_OR_RETURN(place.bytes, memory_->Resolve(shared_field, *shared, static_cast<std::size_t>(*expected)));
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

// The sizes of what will be allocated, refused where they exceed the limit.
absl::Status SetResult(const Request& request, const Limits& limits, const Shape& shape, ValidAttention& valid) {
  const std::optional<std::int64_t> output = BytesOf(shape, valid.attention.out.dtype);
  const std::optional<std::int64_t> log_sum_exp =
      request.return_log_sum_exp() ? BytesOf({shape.batch, shape.heads, shape.rows, 1}, tensor::DType::kF32) : 0;
  if (!output.has_value() || !log_sum_exp.has_value() || *log_sum_exp > limits.max_result_bytes ||
      *output > limits.max_result_bytes - *log_sum_exp) {
    const std::string got = Described(shape, valid.attention.out.dtype);
    return FieldError(absl::StatusCode::kResourceExhausted, "output",
                      absl::StrCat("a result of at most ", limits.max_result_bytes, " bytes (--max_result_bytes)"),
                      *log_sum_exp > 0 ? absl::StrCat(got, " and its log-sum-exp") : got);
  }
  valid.output_bytes = *output;
  valid.log_sum_exp_bytes = *log_sum_exp;
  SetStrides(request.layout(), shape, valid.attention.out);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ValidAttention> AttentionValidator::Validate(const Request& request, const RequestTensors& tensors,
                                                            const model::Model* model) const {
  ValidAttention valid{};
  kernel::Attention& a = valid.attention;
  ATTND_RETURN_IF_ERROR(SetSizes(request, limits_, a));
  ATTND_RETURN_IF_ERROR(SetBias(request, model, valid));
  ATTND_RETURN_IF_ERROR(SetDtypes(request, valid));
  if (!v1::Layout_IsValid(request.layout())) {
    return InvalidField("layout", absl::StrCat(contract::kLayouts, ", or unset"), static_cast<int>(request.layout()));
  }
  ATTND_RETURN_IF_ERROR(SetScale(request, a));
  ATTND_RETURN_IF_ERROR(SetSequences(request, a));
  TensorSetter setter(request, memory_, valid);
  ATTND_RETURN_IF_ERROR(SetTensors(request, limits_, tensors, setter, a));
  ATTND_RETURN_IF_ERROR(SetResult(request, limits_, {a.batch, a.heads, a.query_length, a.value_head_dim}, valid));
  ATTND_RETURN_IF_ERROR(PlaceRows(request, a, valid.places));
  if (request.has_output_shared()) ATTND_RETURN_IF_ERROR(setter.SetOutput(request.output_shared()));
  if (request.has_log_sum_exp_shared()) ATTND_RETURN_IF_ERROR(setter.SetLogSumExp(request.log_sum_exp_shared()));
  return valid;
}

}  // namespace attnd::server
