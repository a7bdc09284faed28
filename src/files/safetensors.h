// Reader of safetensors files (https://github.com/huggingface/safetensors, section "Format"): the header's length in 8
// bytes, the header as JSON, then the bytes of the tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "files/byte_source.h"

namespace attnd::files {

// Bits per element of a dtype in safetensors' spelling ("F32", "I64", "BOOL", ...); nullopt for an unknown name.
std::optional<int> SafetensorsBits(std::string_view dtype);

struct StoredTensor {
  std::string dtype;                // as in the file; may be unknown
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::int64_t elements;
  std::int64_t offset;  // of the first byte, from the start of the file
  std::int64_t size;    // in bytes
};

// A file whose header has been checked. Immutable and thread-safe.
class SafetensorsFile {
 public:
  // More than ten times what the largest checkpoints need. Parsed, a header takes about ten times its size in memory.
  static constexpr std::int64_t kMaxHeaderBytes = std::int64_t{1} << 25;

  // Reads and checks only the header. Errors: INVALID_ARGUMENT that says what is wrong: a header length beyond the file
  // or kMaxHeaderBytes, JSON that is not strict (strict_json.h), metadata that is not strings, a byte range that does
  // not match the shape (for known dtypes; unknown ones are accepted), byte ranges that overlap, leave a gap, or do not
  // end at the end of the file. DATA_LOSS if the source cannot be read.
  static absl::StatusOr<SafetensorsFile> Open(std::unique_ptr<ByteSource> source);

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

  // Null if there is no tensor of this name.
  const StoredTensor* Find(std::string_view name) const;

  // Bytes [first, first + out.size()) of one of this file's tensors. Errors: OUT_OF_RANGE, DATA_LOSS.
  absl::Status Read(const StoredTensor& tensor, std::int64_t first, absl::Span<std::byte> out) const;

  // All values of one of this file's tensors, widened to float. The caller has checked `elements`. Errors:
  // INVALID_ARGUMENT if the dtype cannot be converted, DATA_LOSS.
  absl::StatusOr<std::vector<float>> ReadFloats(const StoredTensor& tensor) const;

 private:
  SafetensorsFile() = default;
  std::unique_ptr<ByteSource> source_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace attnd::files
