// Writer of safetensors files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace attnd::files {

struct TensorToWrite {
  std::string name;
  std::string dtype;  // in safetensors' spelling
  std::vector<std::int64_t> shape;
  absl::Span<const std::byte> bytes;  // borrowed
};

// The bytes before the tensors' data: length and header, padded so that the data begins at a multiple of 8. `tensors`
// are in the order in which their data will be written. Errors: INVALID_ARGUMENT for a name that is repeated, empty,
// reserved ("__metadata__") or not UTF-8, an unknown dtype, or bytes that do not match the shape.
absl::StatusOr<std::string> SafetensorsHeader(absl::Span<const TensorToWrite> tensors,
                                              const std::map<std::string, std::string>& metadata);

// Writes `path`, as WriteFile does (output_file.h). Errors: as SafetensorsHeader and WriteFile.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace attnd::files
