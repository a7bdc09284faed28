// Memory for the benchmarks' tensors, on pages of a chosen size. Readers of 4 KiB pages wait for address translations
// that huge pages avoid. Therefore all tensors of a comparison must be on the same kind of page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "memory/huge_pages.h"

namespace attnd::bench {

using memory::kHugePageBytes;

enum class PageKind : std::uint8_t { kSmall, kHuge };

// Parses "huge" or "small". Errors: INVALID_ARGUMENT for any other name.
absl::StatusOr<PageKind> ParsePageKind(const std::string& name);

// Zeroed memory that begins at a huge page boundary and fills whole huge pages. The kernel does not merge its mapping
// with others, so its pages can be counted. Aborts the process if there is no memory.
class PageBuffer {
 public:
  PageBuffer() = default;
  // The system may not provide the huge pages that kHuge asks for; memory::HugeFraction returns the part on huge pages.
  PageBuffer(std::size_t bytes, PageKind kind);
  ~PageBuffer();
  PageBuffer(PageBuffer&& other) noexcept { *this = static_cast<PageBuffer&&>(other); }
  PageBuffer& operator=(PageBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  std::byte* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace attnd::bench
