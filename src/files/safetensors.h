// Reader of safetensors files (https://github.com/huggingface/safetensors, section "Format"): 8 bytes header length,
// that many bytes of JSON, then the tensors' bytes.
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

// Bits of one element of a dtype as safetensors names it ("F32", "I64", "BOOL", ...); nullopt for an unknown name.
std::optional<int> SafetensorsBits(std::string_view dtype);

struct StoredTensor {
  std::string dtype;                // as the file has it; of any name
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::int64_t elements;
  std::int64_t offset;  // of the first byte, from the file's start
  std::int64_t size;    // in bytes
};

// A checked file. Immutable and thread-safe.
class SafetensorsFile {
 public:
  // A tenth of it is more than the largest checkpoints need; the JSON of a header takes some ten times its size.
  static constexpr std::int64_t kMaxHeaderBytes = std::int64_t{1} << 25;

  // Reads and checks the header alone. Errors: INVALID_ARGUMENT with what is wrong: a length beyond the file or
  // kMaxHeaderBytes, JSON that is not strict (see strict_json.h), metadata that is not strings, a shape whose size is
  // not the byte range's (where the dtype is known: a tensor may have any), ranges that overlap, leave a hole, or do
  // not end where the file does. DATA_LOSS if the source cannot be read.
  static absl::StatusOr<SafetensorsFile> Open(std::unique_ptr<ByteSource> source);

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

  // Null if there is none of this name.
  const StoredTensor* Find(std::string_view name) const;

  // Bytes [first, first + out.size()) of one of this file's tensors. Errors: OUT_OF_RANGE, DATA_LOSS.
  absl::Status Read(const StoredTensor& tensor, std::int64_t first, absl::Span<std::byte> out) const;

  // All of one of this file's tensors, widened. The caller has checked `elements`. Errors: INVALID_ARGUMENT if its
  // dtype does not convert, DATA_LOSS.
  absl::StatusOr<std::vector<float>> ReadFloats(const StoredTensor& tensor) const;

 private:
  SafetensorsFile() = default;
  std::unique_ptr<ByteSource> source_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace attnd::files
