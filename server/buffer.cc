#include "server/buffer.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

absl::StatusOr<Buffer> Buffer::Create(std::size_t size) {
  if (size == 0) return Buffer();
  void* bytes = nullptr;
  if (size <= std::numeric_limits<std::size_t>::max() - kAlignment) {
    bytes = std::aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
  }
  if (bytes == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("the server has no memory for a result of ", size, " bytes"));
  }
  return Buffer(static_cast<std::byte*>(bytes), size);
}

grpc::Slice Buffer::ToSlice() && {
  const std::size_t size = std::exchange(size_, 0);
  std::byte* const bytes = bytes_.release();
  if (bytes == nullptr) return grpc::Slice();
  return grpc::Slice(
      bytes, size, [](void* released) { std::free(released); }, bytes);
}

}  // namespace attnd::server
