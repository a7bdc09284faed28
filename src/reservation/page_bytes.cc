#include "reservation/page_bytes.h"

#include "memory/huge_pages.h"
#include "tensor/checked_size.h"

namespace attnd::reservation {
namespace {

constexpr std::int64_t kMostPageBytes = std::int64_t{1} << 40;
constexpr std::int64_t kLine = 64;
constexpr auto kHuge = static_cast<std::int64_t>(memory::kHugePageBytes);
constexpr std::int64_t kSmall = 64 << 10;  // the largest page size of any system, huge pages aside
constexpr std::int64_t kMostPoolBytes = std::int64_t{1} << 62;

std::int64_t RoundUp(std::int64_t bytes, std::int64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

std::optional<std::int64_t> LayerBytes(const LayerShape& layer, tensor::DType dtype) {
  if (layer.kv_heads < 1 || layer.head_dim < 1 || layer.value_head_dim < 1) return std::nullopt;
  if (layer.head_dim > kMostPageBytes || layer.value_head_dim > kMostPageBytes) return std::nullopt;
  const std::optional<std::int64_t> bytes =
      tensor::CheckedProduct({layer.kv_heads, kPageTokens, layer.head_dim + layer.value_head_dim,
                              static_cast<std::int64_t>(tensor::SizeOf(dtype))});
  if (!bytes.has_value() || *bytes > kMostPageBytes) return std::nullopt;
  return RoundUp(*bytes, kLine);
}

std::optional<std::int64_t> PageBytes(absl::Span<const LayerShape> layers, tensor::DType dtype) {
  std::int64_t bytes = 0;
  for (const LayerShape& layer : layers) {
    const std::optional<std::int64_t> more = LayerBytes(layer, dtype);
    if (!more.has_value() || *more > kMostPageBytes - bytes) return std::nullopt;
    bytes += *more;
  }
  if (layers.empty()) return std::nullopt;
  return bytes;
}

std::optional<std::int64_t> MostPages(std::int64_t sequences, std::int64_t most_tokens) {
  return tensor::CheckedProduct({sequences, most_tokens / kPageTokens + 2});
}

std::optional<std::int64_t> PoolBytes(std::int64_t page_bytes, std::int64_t pages) {
  const std::optional<std::int64_t> bytes = tensor::CheckedProduct({page_bytes, pages});
  if (!bytes.has_value() || *bytes > kMostPoolBytes) return std::nullopt;
  return RoundUp(*bytes, *bytes < kHuge ? kSmall : kHuge);
}

}  // namespace attnd::reservation
