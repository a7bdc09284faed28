#include "server/app/library_log.h"

#include <string>

#include "platform/platform.h"
#include "spdlog/spdlog.h"

#if ATTND_ABSL_LOG
#include "absl/log/globals.h"
#include "absl/log/initialize.h"
#include "absl/log/log_entry.h"
#include "absl/log/log_sink.h"
#include "absl/log/log_sink_registry.h"
#else
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#endif

namespace attnd::server {
namespace {

// gRPC's errors are mostly about single connections, so they become warnings; its other lines are for debugging.
// protobuf's lines are about what callers send. They are for debugging too, because the callers get an error.
spdlog::level::level_enum LevelOf(bool is_error) { return is_error ? spdlog::level::warn : spdlog::level::debug; }

#if ATTND_ABSL_LOG
class Sink final : public absl::LogSink {
 public:
  void Send(const absl::LogEntry& entry) override {
    const std::string file(entry.source_filename());
    const bool from_protobuf = file.find("google/protobuf") != std::string::npos;
    spdlog::log(LevelOf(!from_protobuf && entry.log_severity() >= absl::LogSeverity::kError), "{}: {}",
                from_protobuf ? "protobuf" : "grpc", std::string(entry.text_message()));
  }
};
#else
void LogFromGrpc(gpr_log_func_args* line) {
  spdlog::log(LevelOf(line->severity == GPR_LOG_SEVERITY_ERROR), "grpc: {}", line->message);
}

void LogFromProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  spdlog::log(LevelOf(false), "protobuf: {}", message);
}
#endif

}  // namespace

void TakeLibraryLogs() {
#if ATTND_ABSL_LOG
  static const bool taken = [] {
    absl::SetStderrThreshold(absl::LogSeverityAtLeast::kInfinity);
    absl::InitializeLog();
    absl::AddLogSink(new Sink());
    return true;
  }();
  static_cast<void>(taken);
#else
  gpr_set_log_function(LogFromGrpc);
  google::protobuf::SetLogHandler(LogFromProtobuf);
#endif
}

}  // namespace attnd::server
