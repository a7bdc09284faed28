#include "failing_allocator.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <new>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace attnd::test {
namespace {

enum class Kind : std::uint8_t { kNeutral, kOurs, kGrpc, kTest };

bool Has(std::string_view name, std::string_view part) { return name.find(part) != std::string_view::npos; }

// Of a function, by its mangled name. A template's instance, or std::function's call of a lambda, has the names of its
// arguments in its own.
Kind KindOf(std::string_view name) {
  if (Has(name, "14no_memory_test") || name.starts_with("_ZN7testing")) return Kind::kTest;
  if (Has(name, "ZN4grpc") || Has(name, "ZNK4grpc") || Has(name, "ZN9grpc_core")) {
    const bool message = name.starts_with("_ZN4grpc6health2v1") || name.starts_with("_ZNK4grpc6health2v1") ||
                         name.starts_with("_ZN4grpc10reflection") || name.starts_with("_ZNK4grpc10reflection");
    const bool parses = Has(name, "18GenericDeserialize") || Has(name, "16GenericSerialize") ||
                        name.starts_with("_ZN4grpc19SerializationTraits");
    return message || parses ? Kind::kNeutral : Kind::kGrpc;
  }
  if (name.starts_with("_ZN6google") || name.starts_with("_ZNK6google")) return Kind::kNeutral;
  for (std::size_t at = name.find("5attnd"); at != std::string_view::npos; at = name.find("5attnd", at + 1)) {
    const std::string_view rest = name.substr(at + 6);
    if (!rest.starts_with("2v1") && !rest.starts_with("4test")) return Kind::kOurs;
  }
  return Kind::kNeutral;
}

// The functions of this executable, from its own table of symbols, which has those that are not exported too.
class Symbols {
 public:
  Symbols() {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    const std::vector<char> image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ElfW(Ehdr) header;
    std::memcpy(&header, image.data(), sizeof(header));
    std::vector<ElfW(Shdr)> sections(header.e_shnum);
    std::memcpy(sections.data(), image.data() + header.e_shoff, sections.size() * sizeof(ElfW(Shdr)));
    for (const ElfW(Shdr) & section : sections) {
      if (section.sh_type != SHT_SYMTAB) continue;
      const char* const names = image.data() + sections[section.sh_link].sh_offset;
      for (std::size_t i = 0; i < section.sh_size / sizeof(ElfW(Sym)); ++i) {
        ElfW(Sym) symbol;
        std::memcpy(&symbol, image.data() + section.sh_offset + i * sizeof(symbol), sizeof(symbol));
        if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value == 0) continue;
        functions_.push_back({symbol.st_value, symbol.st_value + symbol.st_size, names + symbol.st_name});
      }
    }
    std::sort(functions_.begin(), functions_.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
    Dl_info own;
    dladdr(reinterpret_cast<void*>(&FailAllocation), &own);
    base_ = own.dli_fbase;
  }

  // Empty for an address in no function.
  std::string Name(const void* address) const {
    Dl_info info;
    if (dladdr(address, &info) == 0) return "";
    if (info.dli_fbase != base_) return std::string("library ") + info.dli_fname;
    // A position-independent executable; the return address is behind the call.
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_) - 1;
    auto next = std::upper_bound(functions_.begin(), functions_.end(), at,
                                 [](std::uintptr_t value, const Function& function) { return value < function.begin; });
    while (next != functions_.begin()) {
      --next;
      if (at < next->end) return next->name;
      if (at - next->begin > (1U << 20)) break;
    }
    return "";
  }

 private:
  struct Function {
    std::uintptr_t begin;
    std::uintptr_t end;
    std::string name;
  };
  std::vector<Function> functions_;
  void* base_ = nullptr;
};

// What is known of addresses. Never destroyed: threads allocate until the end.
struct Known {
  Symbols symbols;
  std::mutex mutex;
  std::unordered_map<const void*, Kind> kinds;

  Kind Of(const void* address) {
    const std::lock_guard lock(mutex);
    const auto found = kinds.find(address);
    if (found != kinds.end()) return found->second;
    const std::string name = symbols.Name(address);
    Kind kind = KindOf(name);
    if (name.starts_with("library ") && (Has(name, "libgrpc") || Has(name, "libgpr"))) kind = Kind::kGrpc;
    kinds[address] = kind;
    return kind;
  }
};
Known& Memory() {
  static auto* const known = new Known;
  return *known;
}

constexpr std::size_t kMaxFrames = 96;
using Frames = std::array<void*, kMaxFrames>;

bool MayFail(const Frames& frames, std::size_t size) {
  std::size_t at = 0;
  while (at < size && Memory().Of(frames[at]) == Kind::kNeutral) ++at;
  if (at == size || Memory().Of(frames[at]) != Kind::kOurs) return false;
  for (; at < size; ++at) {
    const Kind kind = Memory().Of(frames[at]);
    if (kind == Kind::kTest) return false;
    if (kind == Kind::kGrpc) break;
  }
  return true;
}

std::atomic<bool> armed{false};
std::atomic<std::int64_t> counted{0};
std::atomic<std::int64_t> first_to_fail{0};
std::atomic<bool> all_after{false};
std::atomic<bool> failed{false};
Frames failed_at;  // written by the thread that set `failed`
std::atomic<std::size_t> failed_frames{0};
thread_local bool deciding = false;

}  // namespace

// Whether this allocation is to fail.
bool Fails() {
  if (!armed.load(std::memory_order_acquire) || deciding) return false;
  deciding = true;
  Frames frames;
  const auto size = static_cast<std::size_t>(backtrace(frames.data(), static_cast<int>(frames.size())));
  bool fails = false;
  if (MayFail(frames, size)) {
    const std::int64_t number = counted.fetch_add(1) + 1;
    fails = number == first_to_fail.load() || (all_after.load() && number > first_to_fail.load());
    if (fails && !failed.exchange(true)) {
      failed_at = frames;
      failed_frames.store(size);
    }
  }
  deciding = false;
  return fails;
}

void FailAllocation(std::int64_t first, bool all) {
  // What the first backtrace, and the names, need is allocated before it counts.
  Frames frames;
  backtrace(frames.data(), static_cast<int>(frames.size()));
  Memory();
  counted.store(0);
  first_to_fail.store(first);
  all_after.store(all);
  failed.store(false);
  failed_frames.store(0);
  armed.store(true, std::memory_order_release);
}

std::string StopFailing() {
  armed.store(false);
  if (!failed.load()) return "";
  std::string text = "the allocation that failed:\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(failed_frames.load(), 24); ++i) {
    const std::string name = Memory().symbols.Name(failed_at[i]);
    int status = 0;
    char* const shown = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    text.append("  ").append(std::string(shown != nullptr ? shown : name.c_str()).substr(0, 160)).append("\n");
    std::free(shown);
  }
  return text;
}

namespace {

void* Allocate(std::size_t size) { return Fails() ? nullptr : std::malloc(size == 0 ? 1 : size); }

void* AllocateAligned(std::size_t alignment, std::size_t size) {
  if (Fails()) return nullptr;
  return memalign(alignment, (size + alignment - 1) / alignment * alignment);
}

void* OrThrow(void* block) {
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

}  // namespace
}  // namespace attnd::test

using attnd::test::Allocate;
using attnd::test::AllocateAligned;
using attnd::test::OrThrow;

void* operator new(std::size_t size) { return OrThrow(Allocate(size)); }
void* operator new[](std::size_t size) { return OrThrow(Allocate(size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return OrThrow(AllocateAligned(static_cast<std::size_t>(alignment), size));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return OrThrow(AllocateAligned(static_cast<std::size_t>(alignment), size));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return AllocateAligned(static_cast<std::size_t>(alignment), size);
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return AllocateAligned(static_cast<std::size_t>(alignment), size);
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept { std::free(block); }

// Buffer's (server/wire/buffer.cc). Does what libc's does for the sizes that it may be asked for.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return AllocateAligned(alignment, size);
}
