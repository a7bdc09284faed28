#include "server/attention/result_size.h"

#include <optional>

#include "tensor/checked_size.h"

namespace attnd::server {
namespace {

// 0 for one that is refused.
std::int64_t ElementBytes(v1::Dtype dtype) {
  switch (dtype) {
    case v1::DTYPE_FP32:
      return 4;
    case v1::DTYPE_FP16:
    case v1::DTYPE_BF16:
      return 2;
    default:
      return 0;
  }
}

}  // namespace

std::int64_t SentResultBytes(const v1::ComputeAttentionRequest& request, std::int64_t max_result_bytes) {
  const bool same = request.output_dtype() == v1::DTYPE_UNSPECIFIED;
  const std::int64_t element = ElementBytes(same ? request.dtype() : request.output_dtype());
  const std::int64_t dim = request.value_head_dim() == 0 ? request.head_dim() : request.value_head_dim();
  const std::optional<std::int64_t> output =
      tensor::CheckedProduct({request.batch(), request.heads(), request.query_length(), dim, element});
  const std::optional<std::int64_t> log_sum_exp =
      request.return_log_sum_exp()
          ? tensor::CheckedProduct({request.batch(), request.heads(), request.query_length(), sizeof(float)})
          : 0;
  if (!output.has_value() || !log_sum_exp.has_value()) return 0;
  if (*log_sum_exp > max_result_bytes || *output > max_result_bytes - *log_sum_exp) return 0;
  return (request.has_output_shared() ? 0 : *output) + (request.has_log_sum_exp_shared() ? 0 : *log_sum_exp);
}

}  // namespace attnd::server
