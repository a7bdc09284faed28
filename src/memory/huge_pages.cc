#include "memory/huge_pages.h"

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>

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

double HugeFraction(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  std::ifstream maps("/proc/self/smaps");
  std::uint64_t resident = 0;
  std::uint64_t huge = 0;
  bool within = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    std::uint64_t kib = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
      within = from < begin + bytes && begin < to;
    } else if (within && std::sscanf(line.c_str(), "Rss: %" SCNu64, &kib) == 1) {
      resident += kib;
    } else if (within && (std::sscanf(line.c_str(), "AnonHugePages: %" SCNu64, &kib) == 1 ||
                          std::sscanf(line.c_str(), "ShmemPmdMapped: %" SCNu64, &kib) == 1)) {
      huge += kib;
    }
  }
  return resident == 0 ? 0 : static_cast<double>(huge) / static_cast<double>(resident);
}

double HugeFractionOfHeap(std::size_t bytes) {
  const std::unique_ptr<std::byte[]> block(new (std::nothrow) std::byte[bytes]);
  if (block == nullptr) return 0;
  std::memset(block.get(), 1, bytes);
  return HugeFraction(block.get(), bytes);
}

}  // namespace attnd::memory
