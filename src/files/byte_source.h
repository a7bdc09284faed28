// Random access to bytes of a file or of memory; only the requested bytes are read. File readers take a ByteSource, so
// that they never read a whole checkpoint and can be tested without files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace attnd::files {

// Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Total size in bytes when the source was opened.
  virtual std::int64_t size() const = 0;

  // Fills `out` from byte `offset` on. Errors: OUT_OF_RANGE if [offset, offset + out.size()) is not inside [0, size()),
  // DATA_LOSS if the file has shrunk or cannot be read.
  virtual absl::Status ReadAt(std::int64_t offset, absl::Span<std::byte> out) const = 0;
};

// Opens a regular file for reading. Errors: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not a regular file),
// RESOURCE_EXHAUSTED (no file descriptors left).
absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::string& path);

// The same for an open file descriptor. Takes ownership of it, also on failure. `path` is for messages.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenDescriptor(int descriptor, const std::string& path);

// Borrows `bytes`.
std::unique_ptr<ByteSource> OpenMemory(absl::Span<const std::byte> bytes);

}  // namespace attnd::files
