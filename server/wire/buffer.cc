#include "server/wire/buffer.h"

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
  if (size_ == 0) return grpc::Slice();
  auto owner = std::make_unique<Buffer>(std::move(*this));
  grpc::Slice slice(
      owner->data(), owner->size(), [](void* released) { delete static_cast<Buffer*>(released); }, owner.get());
  static_cast<void>(owner.release());  // owned by the slice from now on
  return slice;
}

}  // namespace attnd::server
