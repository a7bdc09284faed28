#include "kernel/registry.h"

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernel/amx_permission.h"
#include "kernel/kernel.h"
#include "platform/platform.h"

#if ATTND_AARCH64
#include <sys/auxv.h>
#endif

namespace attnd::kernel {

// Each build defines its own kKernel, in kernel_impl.cc.
#define ATTND_DECLARE_KERNEL(tag, supported) \
  namespace tag {                            \
  extern const Kernel kKernel;               \
  }
#include "kernel/builds.inc"
#undef ATTND_DECLARE_KERNEL

namespace {

struct Build {
  const Kernel* kernel;
  bool supported;
};

// Every build in this binary, best first.
std::vector<Build> AllBuilds() {
#if ATTND_X86_64
  __builtin_cpu_init();
#endif
  std::vector<Build> builds;
#define ATTND_DECLARE_KERNEL(tag, condition) builds.push_back({&tag::kKernel, static_cast<bool>(condition)});
#include "kernel/builds.inc"
#undef ATTND_DECLARE_KERNEL
  return builds;
}

const std::vector<Build>& Builds() {
  static const std::vector<Build>* const builds = new std::vector<Build>(AllBuilds());
  return *builds;
}

}  // namespace

const std::vector<const Kernel*>& AvailableKernels() {
  static const std::vector<const Kernel*>* const available = [] {
    auto* kernels = new std::vector<const Kernel*>;
    for (const Build& build : Builds()) {
      if (build.supported) kernels->push_back(build.kernel);
    }
    return kernels;
  }();
  return *available;
}

std::string_view NameOf(const Kernel& kernel) { return kernel.name; }

std::string RequestedKernel(std::string_view name) {
  if (!name.empty()) return std::string(name);
  const char* const forced = std::getenv("ATTND_KERNEL");
  return forced == nullptr ? "" : forced;
}

absl::StatusOr<const Kernel*> ChooseKernel(std::string_view asked) {
  const std::string name = RequestedKernel(asked);
  if (name.empty()) return AvailableKernels().front();
  const std::string usable = absl::StrJoin(
      AvailableKernels(), ", ", [](std::string* out, const Kernel* kernel) { absl::StrAppend(out, kernel->name); });
  for (const Build& build : Builds()) {
    if (build.kernel->name != name) continue;
    if (build.supported) return build.kernel;
    return absl::FailedPreconditionError(absl::StrCat(
        "kernel ", name, ": the CPU lacks its instructions or the system withholds them; usable: ", usable));
  }
  return absl::NotFoundError(absl::StrCat("no kernel is called \"", name, "\"; this CPU can run: ", usable));
}

}  // namespace attnd::kernel
