// Reader of GGUF files, versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "files/byte_source.h"
#include "model/gguf_cursor.h"
#include "tensor/dtype.h"

namespace attnd::model {

struct GgufTensor {
  std::vector<std::int64_t> dims;      // fastest first, as in GGUF
  std::string type;                    // ggml's name: "F32", "Q8_0", ...; "77" for an unknown number
  std::optional<tensor::DType> dtype;  // if the type converts to float
  std::int64_t elements;
  std::int64_t offset;               // of the first byte, from the start of the file
  std::optional<std::int64_t> size;  // in bytes; nullopt if the type's size is unknown
};

// A file whose header has been checked. Immutable and thread-safe.
class GgufFile {
 public:
  // Reads and checks only the header. Tensors may have any type, and there may be gaps between them. Errors:
  // INVALID_ARGUMENT that says what is wrong: the magic, the version, a big-endian file, counts or lengths that the
  // file cannot hold, repeated keys or names, an unknown type of metadata (its end is unknown), an alignment that is
  // neither a multiple of 8 nor a power of two, a tensor whose size overflows, or whose bytes are not aligned, overlap
  // another tensor's or lie beyond the file. DATA_LOSS if the source cannot be read.
  static absl::StatusOr<GgufFile> Open(std::unique_ptr<files::ByteSource> source);

  // Metadata values: integers that are not negative, and short strings. For any other value, only its presence.
  using Value = std::variant<std::monostate, std::int64_t, std::string>;
  const std::map<std::string, Value, std::less<>>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // All values of one of this file's tensors, widened to float. The caller has checked `elements`. Errors:
  // INVALID_ARGUMENT if the type cannot be converted, DATA_LOSS.
  absl::StatusOr<std::vector<float>> ReadFloats(const GgufTensor& tensor) const;

 private:
  GgufFile() = default;
  absl::Status ReadMetadata(GgufCursor& cursor, std::uint64_t count);
  absl::Status ReadTensors(GgufCursor& cursor, std::uint64_t count, std::int64_t file_size);
  absl::Status CheckRanges(std::int64_t data_size, std::int64_t alignment) const;
  absl::StatusOr<std::int64_t> Alignment() const;

  std::unique_ptr<files::ByteSource> source_;
  std::map<std::string, Value, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace attnd::model
