// Converts the protocol's element types to the engine's.
#pragma once

#include <optional>

#include "attnd/v1/attention.pb.h"
#include "tensor/dtype.h"

namespace attnd::server {

// Returns nullopt for unset and unknown types.
inline std::optional<tensor::DType> EngineDtype(v1::Dtype dtype) {
  switch (dtype) {
    case v1::DTYPE_FP32:
      return tensor::DType::kF32;
    case v1::DTYPE_FP16:
      return tensor::DType::kF16;
    case v1::DTYPE_BF16:
      return tensor::DType::kBF16;
    default:
      return std::nullopt;
  }
}

}  // namespace attnd::server
