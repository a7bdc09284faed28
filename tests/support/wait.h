// Waiting in tests, and what a process must not leave behind.
#pragma once

#include <cstddef>
#include <filesystem>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attnd::test {

// Whether the condition is seen to hold, once, within twenty seconds.
template <typename Condition>
bool Becomes(const Condition& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

// Descriptors that this process has open, with the one that counts them. A thread that starts opens a file for a moment
// (glibc counts the processors), so a count before is to be compared with <=, in Becomes.
inline std::size_t OpenDescriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace attnd::test
