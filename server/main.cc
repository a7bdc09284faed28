// attnd: flags, server, signals.

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_join.h"
#include "server/flags.h"
#include "server/log.h"
#include "server/server.h"
#include "server/version.h"
#include "server/warm_allocator.h"
#include "spdlog/spdlog.h"

namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

int main(int argc, char** argv) {
  const absl::StatusOr<attnd::server::Options> options = attnd::server::OptionsFromCommandLine(argc, argv);
  if (!options.ok()) {
    std::cerr << "attnd: " << options.status().message() << "\nTry 'attnd --help'." << std::endl;
    return 2;
  }
  attnd::server::KeepFreedMemory();
  attnd::server::SetUpLog(options->log_level);
  // Blocked before any thread exists, so that all inherit it and sigwait below is where the signals arrive.
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const absl::StatusOr<std::unique_ptr<attnd::server::Server>> server = attnd::server::Server::Start(*options);
  if (!server.ok()) {
    spdlog::error("attnd cannot start: {}", std::string(server.status().message()));
    return 1;
  }
  spdlog::info("attnd {} listens on {} (kernel {}, {} threads)", attnd::server::kVersion,
               absl::StrJoin((*server)->addresses(), ", "), (*server)->kernel_name(), (*server)->threads());

  int signal = 0;
  sigwait(&signals, &signal);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // a second one ends the process at once
  spdlog::info("attnd stops (signal {}): finishing the calls in flight", signal);
  if (const std::int64_t cut_off = (*server)->Stop(); cut_off > 0) {
    spdlog::warn("attnd stopped; {} calls were cut off after {} (--drain_seconds)", cut_off,
                 absl::FormatDuration(options->drain));
  } else {
    spdlog::info("attnd stopped; every accepted call was answered");
  }
  return 0;
}
