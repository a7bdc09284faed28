#include "guarded_memory.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace attnd::test {
namespace {

constexpr std::size_t kGuard = 4096;  // a multiple of all alignments in use
constexpr std::byte kGuardByte{0xa5};
constexpr std::byte kNaN{0xff};  // in fp32, fp16 and bf16

std::atomic<int> broken{0};

struct Header {
  std::size_t bytes;
};

void* Allocate(std::size_t bytes) {
  auto* const block = static_cast<std::byte*>(std::aligned_alloc(kGuard, (bytes + 3 * kGuard - 1) / kGuard * kGuard));
  if (block == nullptr) return nullptr;
  std::fill_n(block, kGuard, kGuardByte);
  const Header header{bytes};
  std::memcpy(block, &header, sizeof(header));
  std::fill_n(block + kGuard, bytes, kNaN);
  std::fill_n(block + kGuard + bytes, kGuard, kGuardByte);
  return block + kGuard;
}

void Free(void* data) {
  if (data == nullptr) return;
  auto* const block = static_cast<std::byte*>(data) - kGuard;
  Header header;
  std::memcpy(&header, block, sizeof(header));
  const auto is_whole = [](const std::byte* from, const std::byte* to) {
    return std::all_of(from, to, [](std::byte byte) { return byte == kGuardByte; });
  };
  const std::byte* const end = block + kGuard + header.bytes;
  if (!is_whole(block + sizeof(header), block + kGuard) || !is_whole(end, end + kGuard)) ++broken;
  std::free(block);
}

}  // namespace

int GuardsBroken() { return broken.exchange(0); }

}  // namespace attnd::test

void* operator new[](std::size_t bytes, std::align_val_t) {
  void* const data = attnd::test::Allocate(bytes);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
void* operator new[](std::size_t bytes, std::align_val_t, const std::nothrow_t&) noexcept {
  return attnd::test::Allocate(bytes);
}
void operator delete[](void* data, std::align_val_t) noexcept { attnd::test::Free(data); }
void operator delete[](void* data, std::size_t, std::align_val_t) noexcept { attnd::test::Free(data); }
void operator delete[](void* data, std::align_val_t, const std::nothrow_t&) noexcept { attnd::test::Free(data); }
