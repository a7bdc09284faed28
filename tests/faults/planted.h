#pragma once

// In force only in the copy of the sources that scripts/planted_faults.sh builds: it has all listed faults in it, and
// the environment chooses one for each process.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace attnd::planted {

// Static, not inline: a function shared between sources compiled for different instruction sets could be linked from
// one whose instructions this CPU does not have.

// Writes an empty file named as the fault into the folder ATTND_PLANTED_REACHED, if that is set.
[[maybe_unused]] static void NoteReached(long fault) {
  static const char* const folder = std::getenv("ATTND_PLANTED_REACHED");
  if (folder == nullptr) return;
  char path[4096];
  std::snprintf(path, sizeof(path), "%s/%ld", folder, fault);
  const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (file >= 0) close(file);
}

// Whether the code in force is this fault: the one that ATTND_PLANTED_FAULT names. `noted` is one for each place in the
// code.
[[maybe_unused]] static bool IsPlanted(long fault, std::atomic<bool>& noted) {
  static const char* const text = std::getenv("ATTND_PLANTED_FAULT");
  static const long chosen = text == nullptr ? 0 : std::atol(text);
  if (chosen != 0) return chosen == fault;
  if (!noted.load(std::memory_order_relaxed) && !noted.exchange(true)) NoteReached(fault);
  return false;
}

}  // namespace attnd::planted

#define ATTND_IS_PLANTED(fault)                       \
  [] {                                                \
    static std::atomic<bool> noted;                   \
    return ::attnd::planted::IsPlanted(fault, noted); \
  }()
