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
  std::vector<std::int64_t> dims;      // the fastest first, as GGUF has them
  std::string type;                    // ggml's name: "F32", "Q8_0", ...
  std::optional<tensor::DType> dtype;  // of types that convert to float
  std::int64_t elements;
  std::int64_t offset;  // of the first byte, from the file's start
  std::int64_t size;    // in bytes
};

// A checked file. Immutable and thread-safe.
class GgufFile {
 public:
  // Reads and checks the header alone. Errors: INVALID_ARGUMENT with what is wrong: magic, version, big-endian, counts
  // or lengths that the file cannot hold, keys or names given twice, an unknown type, an alignment that is no power of
  // two, a tensor whose size overflows or whose bytes do not stand where the ones before them end (aligned), or beyond
  // the file. DATA_LOSS if the source cannot be read.
  static absl::StatusOr<GgufFile> Open(std::unique_ptr<files::ByteSource> source);

  // Metadata that is one integer (not negative) or one string; the rest is checked and left out.
  using Value = std::variant<std::int64_t, std::string>;
  const std::map<std::string, Value, std::less<>>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // All of one of this file's tensors, widened. The caller has checked `elements`. Errors: INVALID_ARGUMENT if its type
  // does not convert, DATA_LOSS.
  absl::StatusOr<std::vector<float>> ReadFloats(const GgufTensor& tensor) const;

 private:
  GgufFile() = default;
  absl::Status ReadMetadata(GgufCursor& cursor, std::uint64_t count);
  absl::Status ReadTensors(GgufCursor& cursor, std::uint64_t count, std::int64_t file_size);
  absl::StatusOr<std::int64_t> Alignment() const;

  std::unique_ptr<files::ByteSource> source_;
  std::map<std::string, Value, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace attnd::model
