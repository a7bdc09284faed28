#include "server/attention/shapes.h"

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "contract/request.h"
#include "server/attention/dtype.h"
#include "server/rpc/status.h"
#include "tensor/checked_size.h"

namespace attnd::server {
namespace {

std::string Described(const Shape& shape, tensor::DType dtype) {
  return absl::StrCat("batch ", shape.batch, " x heads ", shape.heads, " x rows ", shape.rows, " x dim ", shape.dim,
                      " of ", tensor::NameOf(dtype));
}

}  // namespace

std::optional<std::int64_t> BytesOf(const Shape& shape, tensor::DType dtype) {
  const std::int64_t element = static_cast<std::int64_t>(tensor::SizeOf(dtype));
  return tensor::CheckedProduct({shape.batch, shape.heads, shape.rows, shape.dim, element});
}

absl::StatusOr<std::int64_t> ExpectedBytes(absl::string_view field, const Shape& shape, tensor::DType dtype) {
  const std::optional<std::int64_t> expected = BytesOf(shape, dtype);
  if (expected.has_value()) return *expected;
  return InvalidField(field, "a size that fits 63 bits", Described(shape, dtype));
}

absl::Status CheckBytes(absl::string_view field, std::int64_t expected, const Shape& shape, tensor::DType dtype,
                        std::size_t got) {
  if (static_cast<std::uint64_t>(expected) == got) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(expected, " bytes (", Described(shape, dtype), ")"),
                      absl::StrCat(got, " bytes"));
}

absl::Status CheckLayout(v1::Layout layout) {
  if (v1::Layout_IsValid(layout)) return absl::OkStatus();
  return InvalidField("layout", absl::StrCat(contract::kLayouts, ", or unset"), static_cast<int>(layout));
}

absl::StatusOr<v1::Dtype> SetDtypes(v1::Dtype dtype, v1::Dtype output_dtype, v1::ProductPrecision precision,
                                    kernel::Attention& attention) {
  const std::optional<tensor::DType> inputs = EngineDtype(dtype);
  if (!inputs.has_value()) return InvalidField("dtype", contract::kDtypes, static_cast<int>(dtype));
  attention.q.dtype = attention.k.dtype = attention.v.dtype = *inputs;
  const v1::Dtype chosen = output_dtype == v1::DTYPE_UNSPECIFIED ? dtype : output_dtype;
  const std::optional<tensor::DType> output = EngineDtype(chosen);
  if (!output.has_value()) return InvalidField("output_dtype", contract::kDtypes, static_cast<int>(output_dtype));
  attention.out.dtype = *output;
  switch (precision) {
    case v1::PRODUCT_PRECISION_UNSPECIFIED: {
      const bool all_bf16 = *inputs == tensor::DType::kBF16 && *output == tensor::DType::kBF16;
      attention.product_precision = all_bf16 ? kernel::ProductPrecision::kBF16 : kernel::ProductPrecision::kF32;
      return chosen;
    }
    case v1::PRODUCT_PRECISION_FP32:
      attention.product_precision = kernel::ProductPrecision::kF32;
      return chosen;
    case v1::PRODUCT_PRECISION_BF16:
      attention.product_precision =
          *inputs == tensor::DType::kBF16 ? kernel::ProductPrecision::kBF16 : kernel::ProductPrecision::kF32;
      return chosen;
    default:
      return InvalidField("product_precision", "PRODUCT_PRECISION_FP32, PRODUCT_PRECISION_BF16 or unset",
                          static_cast<int>(precision));
  }
}

absl::StatusOr<ResultBytes> SetResult(v1::Layout layout, bool return_log_sum_exp, const Limits& limits,
                                      const Shape& shape, kernel::Attention& attention) {
  const std::optional<std::int64_t> output = BytesOf(shape, attention.out.dtype);
  const std::optional<std::int64_t> log_sum_exp =
      return_log_sum_exp ? BytesOf({shape.batch, shape.heads, shape.rows, 1}, tensor::DType::kF32) : 0;
  if (!output.has_value() || !log_sum_exp.has_value() || *log_sum_exp > limits.max_result_bytes ||
      *output > limits.max_result_bytes - *log_sum_exp) {
    const std::string got = Described(shape, attention.out.dtype);
    return FieldError(absl::StatusCode::kResourceExhausted, "output",
                      absl::StrCat("a result of at most ", limits.max_result_bytes, " bytes (--max_result_bytes)"),
                      *log_sum_exp > 0 ? absl::StrCat(got, " and its log-sum-exp") : got);
  }
  SetStrides(layout, shape, attention.out);
  return ResultBytes{*output, *log_sum_exp};
}

}  // namespace attnd::server
