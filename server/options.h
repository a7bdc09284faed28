// What a server is told at start: plain data, filled by flags.cc or by a test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnd/v1/server.pb.h"

namespace attnd::server {

// Limits in force; what exceeds one is refused before memory is allocated for it. Meanings: attnd.v1.Limits.
struct Limits {
  std::int64_t max_request_bytes = std::int64_t{256} << 20;
  std::int64_t max_result_bytes = std::int64_t{256} << 20;
  std::int64_t max_inflight_bytes = std::int64_t{1} << 30;
  std::int64_t max_dim = (std::int64_t{1} << 31) - 1;
  std::int64_t max_head_dim = 4096;
  std::int64_t max_models = 1000;
  std::int64_t max_table_values = std::int64_t{1} << 24;
  std::int64_t max_bias_cells = std::int64_t{1} << 22;
  std::int64_t max_model_file_bytes = std::int64_t{64} << 30;
  std::int64_t max_page_size = 1000;
  std::int64_t max_shared_bytes = std::int64_t{8} << 30;
};

struct Options {
  // "host:port" (port 0: any free one), "[v6]:port" or "unix:path".
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  // Permissions of Unix sockets: who may open them may use the server.
  mode_t unix_socket_mode = 0660;
  // Take tensors in memory that callers share at Unix sockets (docs/shared-memory.md).
  bool shared_memory = false;
  // Folder of models; empty: no loading from files.
  std::string model_root;
  // Threads that compute; 0: schedule::DefaultThreads().
  int threads = 0;
  // Name of the kernel; empty: the best that this CPU runs.
  std::string kernel;
  Limits limits;
  // How long a stopping server waits for the calls it has accepted before it cancels them.
  absl::Duration drain = absl::Seconds(30);
  // trace, debug, info, warn, error or off.
  std::string log_level = "info";
  // What GetServerInfo says of the process beside the server's own settings (server/settings.h).
  std::vector<v1::Setting> process_settings;
};

// Errors: INVALID_ARGUMENT naming the flag.
absl::Status CheckOptions(const Options& options);

}  // namespace attnd::server
