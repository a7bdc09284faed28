// What attnctl's commands have in common.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/client.h"

namespace attnd::ctl {

// Exit codes, for scripts. `attnctl --help` lists them.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4 };

struct Command {
  const char* name;       // "models load"
  const char* arguments;  // "PATH"
  const char* summary;    // one line
  const char* details;    // paragraphs and examples for --help
  std::vector<const char*> flags;
  // Bounds on the number of arguments.
  std::size_t fewest, most;
  absl::Status (*run)(const std::vector<std::string>& arguments);
};

// In the order that --help lists them.
const std::vector<Command>& Commands();

absl::Status Attend(const std::vector<std::string>& arguments);
absl::Status Bias(const std::vector<std::string>& arguments);
absl::Status Info(const std::vector<std::string>& arguments);
absl::Status ListModels(const std::vector<std::string>& arguments);
absl::Status ShowModel(const std::vector<std::string>& arguments);
absl::Status LoadModel(const std::vector<std::string>& arguments);
absl::Status ReloadModel(const std::vector<std::string>& arguments);
absl::Status UnloadModel(const std::vector<std::string>& arguments);
absl::Status UploadModel(const std::vector<std::string>& arguments);

// --server, or the environment's ATTND_SERVER, or 127.0.0.1:50051.
std::string ServerAddress();
// A client of that server.
absl::StatusOr<Client> Connect();
// With --timeout.
CallOptions Options();

// A command line that cannot be meant: exit code kUsage.
absl::Status UsageError(const std::string& message);

// Says on standard error what went wrong and what to do about it.
ExitCode Report(const absl::Status& status);

// Prints a model that a call has made, or --json of it.
absl::Status PrintMade(const char* verb, const absl::StatusOr<Model>& model);

// Writes `contents` to `path`, or to standard output if it is empty or "-".
absl::Status WriteOutput(const std::string& path, const std::string& contents);

}  // namespace attnd::ctl
