#include "pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attnd::bench {
namespace {

std::size_t RoundUp(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

absl::StatusOr<PageKind> ParsePageKind(const std::string& name) {
  if (name == "huge") return PageKind::kHuge;
  if (name == "small") return PageKind::kSmall;
  return absl::InvalidArgumentError(absl::StrCat("--pages: expected huge or small, got ", name));
}

PageBuffer::PageBuffer(std::size_t bytes, PageKind kind) : size_(bytes) {
  // The mapping has a margin of at least one page before and after the buffer, and the margin keeps the default advice.
  // The kernel does not merge ranges of different advice. Without the margin it would merge two adjacent buffers.
  const std::size_t inner = RoundUp(bytes, kHugePageBytes);
  mapped_ = inner + 2 * kHugePageBytes;
  void* const mapping = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    std::perror("mmap");
    std::abort();
  }
  mapping_ = static_cast<std::byte*>(mapping);
  const std::size_t begin = reinterpret_cast<std::uintptr_t>(mapping) % kHugePageBytes;
  data_ = mapping_ + (kHugePageBytes - begin);
  // This fails on a system without huge pages. The buffer then has small ones, whatever `kind` is.
  madvise(data_, inner, kind == PageKind::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

PageBuffer::~PageBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

PageBuffer& PageBuffer::operator=(PageBuffer&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace attnd::bench
