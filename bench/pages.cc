#include "pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
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
  // At least a page before and after the buffer keeps the mapping's own advice. Advice that differs separates mappings:
  // without that margin the kernel would merge two buffers that follow each other.
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
  // Fails on a system without huge pages, where small ones are all that there is.
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

double HugeFraction(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  std::ifstream maps("/proc/self/smaps");
  std::uint64_t resident = 0;
  std::uint64_t huge = 0;
  bool within = false;
  for (std::string line; std::getline(maps, line);) {
    // A mapping is "FROM-TO ..." in hexadecimal, then lines "NAME: COUNT kB".
    std::istringstream fields(line);
    std::string name;
    std::uint64_t kib = 0;
    fields >> name;
    if (!name.ends_with(':')) {
      const std::pair<std::string, std::string> range = absl::StrSplit(name, absl::MaxSplits('-', 1));
      std::uint64_t from = 0;
      std::uint64_t to = 0;
      within = absl::SimpleHexAtoi(range.first, &from) && absl::SimpleHexAtoi(range.second, &to) &&
               from < begin + bytes && begin < to;
    } else if (within && name == "Rss:" && fields >> kib) {
      resident += kib;
    } else if (within && name == "AnonHugePages:" && fields >> kib) {
      huge += kib;
    }
  }
  return resident == 0 ? 0 : static_cast<double>(huge) / static_cast<double>(resident);
}

}  // namespace attnd::bench
