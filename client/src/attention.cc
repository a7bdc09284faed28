#include "attnd/attention.h"

#include <cstring>
#include <utility>

namespace attnd {

Tensor::Tensor(DType dtype, std::array<std::int64_t, 4> sizes, Segment bytes, std::shared_ptr<const void> owner)
    : Tensor(dtype, sizes, std::vector<Segment>{bytes}, std::move(owner)) {}

Tensor::Tensor(DType dtype, std::array<std::int64_t, 4> sizes, std::vector<Segment> segments,
               std::shared_ptr<const void> owner)
    : dtype_(dtype), sizes_(sizes), segments_(std::move(segments)), owner_(std::move(owner)) {
  for (const Segment& segment : segments_) size_bytes_ += segment.size();
}

void Tensor::CopyTo(void* destination) const {
  auto* to = static_cast<unsigned char*>(destination);
  for (const Segment& segment : segments_) {
    std::memcpy(to, segment.data(), segment.size());
    to += segment.size();
  }
}

}  // namespace attnd
