#include "server/app/log.h"

#include <memory>
#include <string>

#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

// gRPC's errors are mostly about single connections: a warning of ours. Its other lines are for debugging.
void LogFromGrpc(gpr_log_func_args* line) {
  const auto level = line->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", line->message);
}

// protobuf complains on standard error about what callers send: for debugging, as they are told themselves.
void LogFromProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  spdlog::debug("protobuf: {}", message);
}

}  // namespace

void SetUpLog(absl::string_view level) {
  const auto logger = std::make_shared<spdlog::logger>("attnd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  gpr_set_log_function(LogFromGrpc);
  google::protobuf::SetLogHandler(LogFromProtobuf);
}

}  // namespace attnd::server
