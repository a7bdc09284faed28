#include "server/attention/result_size.h"

#include <optional>

#include "server/attention/dtype.h"
#include "tensor/checked_size.h"
#include "tensor/dtype.h"

namespace attnd::server {

std::int64_t SentResultBytes(const v1::ComputeAttentionRequest& request, std::int64_t max_result_bytes) {
  const bool same = request.output_dtype() == v1::DTYPE_UNSPECIFIED;
  const std::optional<tensor::DType> dtype = EngineDtype(same ? request.dtype() : request.output_dtype());
  if (!dtype.has_value()) return 0;
  const auto element = static_cast<std::int64_t>(tensor::SizeOf(*dtype));
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
