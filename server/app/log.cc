#include "server/app/log.h"

#include <memory>
#include <string>

#include "server/app/library_log.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace attnd::server {

void SetUpLog(absl::string_view level) {
  const auto logger = std::make_shared<spdlog::logger>("attnd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  TakeLibraryLogs();
}

}  // namespace attnd::server
