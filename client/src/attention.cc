#include "attnd/attention.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "contract/request.h"
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

std::vector<unsigned char> PackKeyBits(absl::Span<const unsigned char> mask, std::int64_t key_length) {
  if (key_length < 1) return {};
  const auto keys = static_cast<std::size_t>(key_length);
  const auto row_bytes = static_cast<std::size_t>(contract::KeyBitsBytes(key_length));
  const std::size_t batch = mask.size() / keys;
  std::vector<unsigned char> bits(batch * row_bytes);
  for (std::size_t b = 0; b < batch; ++b) {
    for (std::size_t j = 0; j < keys; ++j) {
      if (mask[b * keys + j] != 0) bits[b * row_bytes + j / 8] |= static_cast<unsigned char>(1U << (j % 8));
    }
  }
  return bits;
}

void Tensor::CopyTo(void* destination) const {
  auto* to = static_cast<unsigned char*>(destination);
  for (const Segment& segment : segments_) {
    std::memcpy(to, segment.data(), segment.size());
    to += segment.size();
  }
}

}  // namespace attnd
