// Sizes, element types and layouts of a request's tensors and its result: what every kind of request checks alike.
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

// A tensor's shape, named for messages: [batch, heads, rows, dim] whatever the layout.
struct Shape {
  std::int64_t batch;
  std::int64_t heads;
  std::int64_t rows;
  std::int64_t dim;
};

// nullopt if they do not fit 63 bits.
std::optional<std::int64_t> BytesOf(const Shape& shape, tensor::DType dtype);

// What `field` would have to have, and that it has it. Errors: INVALID_ARGUMENT.
absl::StatusOr<std::int64_t> ExpectedBytes(absl::string_view field, const Shape& shape, tensor::DType dtype);
absl::Status CheckBytes(absl::string_view field, std::int64_t expected, const Shape& shape, tensor::DType dtype,
                        std::size_t got);

// Errors: INVALID_ARGUMENT.
absl::Status CheckLayout(v1::Layout layout);

// Fills in the strides of `view`, a TensorView or an OutputView.
template <typename View>
void SetStrides(v1::Layout layout, const Shape& shape, View& view) {
  const bool sequence_first = layout == v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM;
  view.batch_stride = shape.heads * shape.rows * shape.dim;
  view.head_stride = sequence_first ? shape.dim : shape.rows * shape.dim;
  view.row_stride = sequence_first ? shape.heads * shape.dim : shape.dim;
}

// The element types of q, k, v and `out`, and the products' precision. Returns that of the output. Errors:
// INVALID_ARGUMENT.
absl::StatusOr<v1::Dtype> SetDtypes(v1::Dtype dtype, v1::Dtype output_dtype, v1::ProductPrecision precision,
                                    kernel::Attention& attention);

struct ResultBytes {
  std::int64_t output;
  std::int64_t log_sum_exp;  // 0 if not asked for
};
// The sizes of what will be allocated, and the strides of `out`, which is `shape`. Errors: RESOURCE_EXHAUSTED where
// they exceed the limit.
absl::StatusOr<ResultBytes> SetResult(v1::Layout layout, bool return_log_sum_exp, const Limits& limits,
                                      const Shape& shape, kernel::Attention& attention);

}  // namespace attnd::server
