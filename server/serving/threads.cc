#include "server/serving/threads.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "schedule/scheduler.h"
#include "server/models/service.h"

namespace attnd::server {
namespace {

void* AwaitEnd(void* end) {
  static_cast<absl::Notification*>(end)->WaitForNotification();
  return nullptr;
}

// Threads of gRPC 1.51: the pools of its event engine and of callbacks, sized by the number of CPUs, and a few that it
// starts when it is busy.
int ThreadsOfGrpc() {
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cpus, 2, 32) + std::clamp(cpus / 2, 2, 16) + 8;
}

}  // namespace

int ComputingThreads(const Options& options) {
  return options.threads > 0 ? options.threads : schedule::DefaultThreads();
}

int ThreadsOf(const Options& options) {
  // Eight more: heap trimmer, stall watch, receive quota, intake of unary calls, intake of streams, session table,
  // acceptor, closing. Two for each address: one serves the local socket beside it, one closes what that hands over.
  return ComputingThreads(options) + ModelService::kFileThreads + ModelService::kTableThreads + ThreadsOfGrpc() + 8 +
         2 * static_cast<int>(options.listen.size());
}

absl::Status CheckThreads(int threads) {
  absl::Notification end;
  std::vector<pthread_t> started;
  int error = 0;
  while (error == 0 && static_cast<int>(started.size()) < threads) {
    pthread_t thread;
    error = pthread_create(&thread, nullptr, &AwaitEnd, &end);
    if (error == 0) started.push_back(thread);
  }
  end.Notify();
  for (const pthread_t thread : started) pthread_join(thread, nullptr);
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "threads: expected at least ", threads, " that the process may start (ulimit -u, the cgroup's pids.max), got ",
      started.size(), ": ", std::generic_category().message(error)));
}

}  // namespace attnd::server
