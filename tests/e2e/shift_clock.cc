// A preloaded library that sets a process's clock: CLOCK_REALTIME is off by as many seconds as the first eight bytes of
// the file ATTND_CLOCK_OFFSET say (std::int64_t), at every look.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace {

const std::atomic<std::int64_t>* Map() {
  static std::atomic<std::int64_t> none{0};
  const char* const path = std::getenv("ATTND_CLOCK_OFFSET");
  if (path == nullptr) return &none;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  void* const bytes = mmap(nullptr, sizeof(std::int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (bytes == MAP_FAILED) std::abort();
  return static_cast<const std::atomic<std::int64_t>*>(bytes);
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) {
  static const auto next = reinterpret_cast<int (*)(clockid_t, timespec*)>(dlsym(RTLD_NEXT, "clock_gettime"));
  static const std::atomic<std::int64_t>* const offset = Map();
  const int result = next(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += offset->load();
  return result;
}
