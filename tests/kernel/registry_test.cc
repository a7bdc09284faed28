#include "kernel/registry.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "platform/platform.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

using testing::HasSubstr;

class Environment {
 public:
  explicit Environment(const char* value) { setenv("ATTND_KERNEL", value, 1); }
  ~Environment() { unsetenv("ATTND_KERNEL"); }
};

TEST(Registry, OffersTheBestFirstAndTheBaselineLast) {
  ASSERT_FALSE(AvailableKernels().empty());
  unsetenv("ATTND_KERNEL");
  EXPECT_EQ(*ChooseKernel(""), AvailableKernels().front());
#if ATTND_X86_64
  EXPECT_EQ(NameOf(*AvailableKernels().back()), "x86-64-v2");
#else
  EXPECT_EQ(NameOf(*AvailableKernels().back()), "aarch64");
#endif
}

TEST(Registry, NamesForceAKernel) {
  for (const Kernel* kernel : AvailableKernels()) {
    const std::string name(NameOf(*kernel));
    EXPECT_EQ(*ChooseKernel(name), kernel);
    const Environment environment(name.c_str());
    EXPECT_EQ(*ChooseKernel(""), kernel);
    EXPECT_EQ(*ChooseKernel(NameOf(*AvailableKernels().back())), AvailableKernels().back());
  }
}

TEST(Registry, UnknownNamesAreNotFound) {
  const auto kernel = ChooseKernel("pentium");
  EXPECT_EQ(kernel.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(kernel.status().message()), HasSubstr("pentium"));
  EXPECT_THAT(std::string(kernel.status().message()), HasSubstr(AvailableKernels().back()->name));
  const Environment environment("pentium");
  EXPECT_EQ(ChooseKernel("").status().code(), absl::StatusCode::kNotFound);
}

#if ATTND_X86_64
TEST(Registry, KernelsOfOtherMachinesAreRefused) {
  for (const std::string name : {"x86-64-v4-amx", "x86-64-v4-bf16", "x86-64-v4", "x86-64-v3"}) {
    const bool available = std::any_of(AvailableKernels().begin(), AvailableKernels().end(),
                                       [&name](const Kernel* kernel) { return NameOf(*kernel) == name; });
    const auto kernel = ChooseKernel(name);
    EXPECT_EQ(kernel.status().code(), available ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition);
    if (!available) {
      EXPECT_THAT(std::string(kernel.status().message()), HasSubstr("usable: "));
    }
  }
}
#endif

// A copy of the forced kernel that counts its calls: the tiles must have gone through it, and into no other build.
int begun = 0;
void (*real_begin)(const Attention&, const RowTile&, std::byte*, std::byte*);

TEST(Registry, TheForcedKernelRuns) {
  for (const Kernel* kernel : AvailableKernels()) {
    const auto forced = ChooseKernel(NameOf(*kernel));
    ASSERT_TRUE(forced.ok());
    Kernel counted = **forced;
    real_begin = counted.begin;
    counted.begin = [](const Attention& a, const RowTile& tile, std::byte* state, std::byte* scratch) {
      ++begun;
      real_begin(a, tile, state, scratch);
    };
    begun = 0;
    Problem problem({.queries = 100, .keys = 100});
    problem.Spoil();
    RunAttention(problem.attention(), counted);
    EXPECT_EQ(begun, (100 + counted.query_tile - 1) / counted.query_tile);
    for (const Kernel* other : AvailableKernels()) {
      EXPECT_EQ(other->begin == real_begin, other == kernel);
    }
  }
}

}  // namespace
}  // namespace attnd::kernel
