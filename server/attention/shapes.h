// Sizes, element types and layouts of a request's tensors and its result: the checks that all kinds of requests share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"
#include "server/config/limits.h"
#include "tensor/dtype.h"

namespace attnd::server {

// A tensor's shape, with names for error messages: [batch, heads, rows, dim] in either layout.
struct Shape {
  std::int64_t batch;
  std::int64_t heads;
  std::int64_t rows;
  std::int64_t dim;
};

// The size of a tensor in bytes; nullopt if it does not fit 63 bits.
std::optional<std::int64_t> BytesOf(const Shape& shape, tensor::DType dtype);

// The bytes that `field` must have, and the check that it has them. Errors: INVALID_ARGUMENT.
absl::StatusOr<std::int64_t> ExpectedBytes(absl::string_view field, const Shape& shape, tensor::DType dtype);
absl::Status CheckBytes(absl::string_view field, std::int64_t expected, const Shape& shape, tensor::DType dtype,
                        std::size_t got);

// Errors: INVALID_ARGUMENT.
absl::Status CheckLayout(v1::Layout layout);

// Sets the strides of `view`, a TensorView or an OutputView.
template <typename View>
void SetStrides(v1::Layout layout, const Shape& shape, View& view) {
  const bool sequence_first = layout == v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM;
  view.batch_stride = shape.heads * shape.rows * shape.dim;
  view.head_stride = sequence_first ? shape.dim : shape.rows * shape.dim;
  view.row_stride = sequence_first ? shape.heads * shape.dim : shape.dim;
}

// Sets the element types of q, k, v and `out`, and the product precision. Returns the output's element type. Errors:
// INVALID_ARGUMENT.
absl::StatusOr<v1::Dtype> SetDtypes(v1::Dtype dtype, v1::Dtype output_dtype, v1::ProductPrecision precision,
                                    kernel::Attention& attention);

struct ResultBytes {
  std::int64_t output;
  std::int64_t log_sum_exp;  // 0 if not asked for
};
// Returns the sizes of the result, whose output has `shape`, and sets the strides of attention.out. Errors:
// RESOURCE_EXHAUSTED if they exceed the limit.
absl::StatusOr<ResultBytes> SetResult(v1::Layout layout, bool return_log_sum_exp, const Limits& limits,
                                      const Shape& shape, kernel::Attention& attention);

}  // namespace attnd::server
