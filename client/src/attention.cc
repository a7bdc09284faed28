#include "attnd/attention.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "tensor/dtype.h"

namespace attnd {

std::size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return tensor::SizeOf(tensor::DType::kF32);
    case DType::kFp16:
      return tensor::SizeOf(tensor::DType::kF16);
    case DType::kBf16:
      break;
  }
  return tensor::SizeOf(tensor::DType::kBF16);
}

Tensor::Tensor(DType dtype, std::array<std::int64_t, 4> sizes, Segment bytes, std::shared_ptr<const void> owner)
    : Tensor(dtype, sizes, std::vector<Segment>{bytes}, std::move(owner)) {}

Tensor::Tensor(DType dtype, std::array<std::int64_t, 4> sizes, std::vector<Segment> segments,
               std::shared_ptr<const void> owner)
    : dtype_(dtype), sizes_(sizes), segments_(std::move(segments)), owner_(std::move(owner)) {
  for (const Segment& segment : segments_) size_bytes_ += segment.size();
}

const void* Tensor::data() const {
  if (segments_.size() != 1) return nullptr;
  const unsigned char* const data = segments_[0].data();
  return reinterpret_cast<std::uintptr_t>(data) % SizeOf(dtype_) == 0 ? data : nullptr;
}

void Tensor::CopyTo(void* destination) const {
  auto* to = static_cast<unsigned char*>(destination);
  for (const Segment& segment : segments_) {
    std::memcpy(to, segment.data(), segment.size());
    to += segment.size();
  }
}

}  // namespace attnd
