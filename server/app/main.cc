// attnd: flags, server, signals.

#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "attnd/v1/server.pb.h"
#include "files/standard_streams.h"
#include "grpc/grpc.h"
#include "heap/heap.h"
#include "heap/trimmer.h"
#include "memory/huge_pages.h"
#include "memory/no_memory.h"
#include "server/app/log.h"
#include "server/config/flags.h"
#include "server/config/version.h"
#include "server/serving/descriptors.h"
#include "server/serving/server.h"
#include "server/serving/settings.h"
#include "server/serving/threads.h"
#include "spdlog/spdlog.h"

namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// The settings "allocator" and "huge_pages". The heap's pages hold received messages, packed keys and values, and
// results.
std::vector<attnd::v1::Setting> SettingsOfTheHeap() {
  using attnd::server::ObservedSetting;
  constexpr std::size_t kProbeBytes = std::size_t{8} << 20;
  const double huge = attnd::memory::HugeFractionOfHeap(kProbeBytes);
  return {ObservedSetting("allocator", attnd::heap::IsInForce(), attnd::heap::Name()),
          ObservedSetting("huge_pages", huge >= 0.5,
                          absl::StrCat(std::lround(100 * huge), "% of the heap's next 8 MiB; the system's mode is ",
                                       attnd::memory::HugePageMode()))};
}

// Waits for a second signal and ends the process. The signal's default action would do that too, but not for the first
// process of a PID namespace, as in a container: there the kernel ignores signals whose action is the default.
void EndAtOnce(sigset_t signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::warn("attnd ends at once (signal {}); calls in flight are lost", signal);
  _exit(128 + signal);
}

}  // namespace

int main(int argc, char** argv) {
  attnd::files::HoldStandardStreams();
  absl::StatusOr<attnd::server::Options> options = attnd::server::OptionsFromCommandLine(argc, argv);
  if (!options.ok()) {
    std::cerr << "attnd: " << options.status().message() << "\nTry 'attnd --help'." << std::endl;
    return 2;
  }
  attnd::heap::Configure();
  const std::vector<attnd::v1::Setting> heap_settings = SettingsOfTheHeap();
  attnd::heap::GiveBack(0);  // the memory that the probe of huge pages has used
  attnd::server::SetUpLog(options->log_level);
  attnd::server::TakeAllDescriptors();
  // Block the signals before any thread exists: all threads inherit that, and sigwait below receives the signals.
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  if (const absl::Status enough = attnd::server::CheckThreads(attnd::server::ThreadsOf(*options)); !enough.ok()) {
    spdlog::error("attnd cannot start: {}", std::string(enough.message()));
    return 1;
  }
  // Never shut down: gRPC's shutdown waits for its threads, one of which may sleep up to 10 s after a large answer.
  grpc_init();
  const absl::StatusOr<std::unique_ptr<attnd::server::Server>> server =
      attnd::server::Server::Start(*options, heap_settings);
  if (!server.ok()) {
    spdlog::error("attnd cannot start: {}", std::string(server.status().message()));
    return 1;
  }
  spdlog::info("attnd {} listens on {} (kernel {}, {} threads)", attnd::server::kVersion,
               absl::StrJoin((*server)->addresses(), ", "), (*server)->kernel_name(), (*server)->threads());
  for (const attnd::v1::Setting& setting : (*server)->info().settings()) {
    spdlog::log(setting.state() == attnd::v1::SETTING_STATE_NOT_IN_FORCE ? spdlog::level::warn : spdlog::level::info,
                "setting {}", attnd::server::InWords(setting));
  }
  std::optional<attnd::heap::Trimmer> trimmer;
  const absl::Status trims = attnd::memory::CatchNoMemoryIn(
      [&] { trimmer.emplace([&server] { return (*server)->TakePeakInflightBytes(); }); });
  if (!trims.ok()) spdlog::warn("memory is not given back while attnd runs: {}", std::string(trims.message()));

  int signal = 0;
  sigwait(&signals, &signal);
  try {
    std::thread(EndAtOnce, signals).detach();
  } catch (const std::system_error& error) {
    spdlog::warn("a second signal will not end attnd at once: {}", error.what());
  }
  spdlog::info("attnd stops (signal {}): finishing the calls in flight", signal);
  const attnd::server::Stopped stopped = (*server)->Stop();
  if (stopped.not_begun > 0) {
    spdlog::info("{} calls came before their clients knew of the stop: CANCELLED, not begun", stopped.not_begun);
  }
  if (stopped.cut_off > 0) {
    spdlog::warn("attnd stopped; {} calls were cut off after {} (--drain_seconds)", stopped.cut_off,
                 absl::FormatDuration(options->drain));
  } else {
    spdlog::info("attnd stopped; every accepted call was answered");
  }
  return 0;
}
