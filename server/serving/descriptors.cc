#include "server/serving/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace attnd::server {
namespace {

// Descriptors of the server itself: listening sockets, those of gRPC and the allocator, model files.
constexpr std::int64_t kOwnDescriptors = 32;

}  // namespace

void TakeAllDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(setrlimit(RLIMIT_NOFILE, &limit));
}

std::int64_t ConnectionsForDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > std::numeric_limits<int>::max()) {
    return std::numeric_limits<int>::max();
  }
  return std::max<std::int64_t>(1, (static_cast<std::int64_t>(limit.rlim_cur) - kOwnDescriptors) * 3 / 4);
}

}  // namespace attnd::server
