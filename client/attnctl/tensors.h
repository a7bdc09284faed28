// Loads tensors of a safetensors file for the client.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "files/safetensors.h"
#include "tensor/dtype.h"

namespace attnd::ctl {

// A four-dimensional tensor in memory.
struct LoadedTensor {
  DType dtype;
  std::array<std::int64_t, 4> sizes;
  std::vector<std::byte> bytes;
  TensorView view() const { return {bytes.data(), dtype, sizes}; }
};

absl::StatusOr<files::SafetensorsFile> OpenSafetensors(const std::string& path);

// Errors: NOT_FOUND, with the names of the existing tensors; INVALID_ARGUMENT for another shape or element type.
absl::StatusOr<LoadedTensor> LoadTensor(const files::SafetensorsFile& file, const std::string& path,
                                        const std::string& name);

// ComputeRequest::key_bits from a tensor [batch, keys] of BOOL or integers that are 0 or 1. Its sizes must be `batch`
// and `keys`. Errors: as LoadTensor.
absl::StatusOr<std::vector<unsigned char>> LoadKeyBits(const files::SafetensorsFile& file, const std::string& path,
                                                       const std::string& name, std::int64_t batch, std::int64_t keys);

// ComputeRequest::key_bias from a tensor [heads, keys] of floats. Its sizes must be `heads` and `keys`. Errors: as
// LoadTensor.
absl::StatusOr<std::vector<float>> LoadKeyBias(const files::SafetensorsFile& file, const std::string& path,
                                               const std::string& name, std::int64_t heads, std::int64_t keys);

tensor::DType ToEngine(DType dtype);

// The elements, converted to FP32.
std::vector<float> Widened(DType dtype, absl::Span<const std::byte> bytes);

}  // namespace attnd::ctl
