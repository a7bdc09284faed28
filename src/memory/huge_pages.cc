#include "memory/huge_pages.h"

#include <cstdint>
#include <fstream>
#include <memory>
#include <new>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace attnd::memory {

std::string HugePageMode(const std::string& enabled) {
  const std::size_t begin = enabled.find('[');
  const std::size_t end = enabled.find(']', begin);
  if (begin == std::string::npos || end == std::string::npos) return "";
  return enabled.substr(begin + 1, end - begin - 1);
}

std::string HugePageMode() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  return HugePageMode(text);
}

bool SystemHasHugePages() {
  const std::string mode = HugePageMode();
  return mode == "always" || mode == "madvise";
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
    } else if (within && (name == "AnonHugePages:" || name == "ShmemPmdMapped:") && fields >> kib) {
      huge += kib;
    }
  }
  return resident == 0 ? 0 : static_cast<double>(huge) / static_cast<double>(resident);
}

double HugeFractionOfHeap(std::size_t bytes) {
  const std::unique_ptr<std::byte[]> block(new (std::nothrow) std::byte[bytes]);
  if (block == nullptr) return 0;
  // volatile: the compiler may drop writes to memory that is freed without being read.
  volatile std::byte* const touched = block.get();
  constexpr std::size_t kPageBytes = 4096;
  for (std::size_t at = 0; at < bytes; at += kPageBytes) touched[at] = std::byte{1};
  return HugeFraction(block.get(), bytes);
}

}  // namespace attnd::memory
