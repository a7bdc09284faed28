#include "memory/no_memory.h"

#include <atomic>
#include <new>
#include <stdexcept>
#include <system_error>

namespace attnd::memory {
namespace {

std::atomic<bool> through{false};

// Never destroyed: threads may still end calls while the process exits.
const absl::Status& MadeOnce() {
  static const auto* const error =
      new absl::Status(absl::ResourceExhaustedError("the server has no memory for this call"));
  return *error;
}

absl::Status NoThread() {
  return CatchNoMemory(
      [] { return absl::ResourceExhaustedError("the system has no room for a thread of the server"); });
}

// Creates it before memory can run out.
[[maybe_unused]] const absl::Status& made_at_start = MadeOnce();

}  // namespace

const absl::Status& NoMemoryError() { return MadeOnce(); }

absl::Status CatchNoMemory(absl::FunctionRef<absl::Status()> run) {
  try {
    return run();
  } catch (const std::bad_alloc&) {
    if (through.load(std::memory_order_relaxed)) throw;
  } catch (const std::length_error&) {
    if (through.load(std::memory_order_relaxed)) throw;
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) throw;
    return NoThread();
  }
  return NoMemoryError();
}

absl::Status CatchNoMemoryIn(absl::FunctionRef<void()> run) {
  return CatchNoMemory([run] {
    run();
    return absl::OkStatus();
  });
}

void LetNoMemoryThroughForTest(bool value) { through.store(value); }

}  // namespace attnd::memory
