#include "server/flags.h"

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/byte_size.h"
#include "server/status.h"
#include "server/unix_socket.h"
#include "server/version.h"

using attnd::server::ByteSize;
using attnd::server::Limits;

ABSL_FLAG(std::vector<std::string>, listen, {"127.0.0.1:50051"},
          "where to listen, separated by commas: host:port (port 0: any free one), [v6]:port, unix:path");
ABSL_FLAG(std::string, model_root, "",
          "folder of models; what lies directly in it is loaded at start, and LoadModel may not leave it");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: the CPUs this process may use");
ABSL_FLAG(std::string, kernel, "", "kernel to use instead of the best one for this CPU (as ATTND_KERNEL)");
ABSL_FLAG(double, drain_seconds, 30, "how long a stopping server waits for the calls it has accepted");
ABSL_FLAG(std::string, unix_socket_mode, "0660", "permissions of unix: sockets, octal");
ABSL_FLAG(bool, shared_memory, false, "take tensors in memory that callers share at unix: sockets");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warn, error or off");

ABSL_FLAG(ByteSize, max_request_bytes, ByteSize{Limits().max_request_bytes}, "largest request");
ABSL_FLAG(ByteSize, max_result_bytes, ByteSize{Limits().max_result_bytes}, "largest result");
ABSL_FLAG(ByteSize, max_inflight_bytes, ByteSize{Limits().max_inflight_bytes},
          "most memory for requests and results in flight");
ABSL_FLAG(std::int64_t, max_dim, Limits().max_dim, "largest batch, number of heads or length");
ABSL_FLAG(std::int64_t, max_head_dim, Limits().max_head_dim, "largest head_dim");
ABSL_FLAG(std::int64_t, max_models, Limits().max_models, "most models loaded at once");
ABSL_FLAG(std::int64_t, max_table_values, Limits().max_table_values, "largest bias table, in values");
ABSL_FLAG(std::int64_t, max_bias_cells, Limits().max_bias_cells, "largest window of GetBias: queries x keys x heads");
ABSL_FLAG(ByteSize, max_model_file_bytes, ByteSize{Limits().max_model_file_bytes}, "largest model file");
ABSL_FLAG(ByteSize, max_shared_bytes, ByteSize{Limits().max_shared_bytes}, "most memory that callers share");

// Abseil's hook for a bad command line, called before it ends the process with status 1.
extern "C" void ABSL_INTERNAL_C_SYMBOL(AbslInternalReportFatalUsageError)(absl::string_view) {
  std::cerr << "Try 'attnd --help'." << std::endl;
  std::exit(2);
}

namespace attnd::server {
namespace {

struct FlagGroup {
  absl::string_view title;
  std::vector<absl::string_view> flags;
};

const std::vector<FlagGroup>& Groups() {
  static const auto* const groups = new std::vector<FlagGroup>{
      {"Serving",
       {"listen", "unix_socket_mode", "shared_memory", "model_root", "threads", "kernel", "drain_seconds",
        "log_level"}},
      {"Limits (a call beyond one is refused; GetServerInfo lists them)",
       {"max_request_bytes", "max_result_bytes", "max_inflight_bytes", "max_dim", "max_head_dim", "max_models",
        "max_table_values", "max_bias_cells", "max_model_file_bytes", "max_shared_bytes"}},
  };
  return *groups;
}

std::string Help() {
  std::string help =
      "attnd: attention with learned relative-position bias, over gRPC\n"
      "\n"
      "  attnd [--listen ADDRESS,...] [--model_root FOLDER] [--threads N]\n"
      "\n"
      "SIGTERM and SIGINT stop it once the calls it has accepted are answered; a second one stops it at once.\n";
  for (const FlagGroup& group : Groups()) {
    absl::StrAppend(&help, "\n", group.title, ":\n");
    for (const absl::string_view name : group.flags) {
      const absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(name);
      const std::string value = flag->DefaultValue();
      absl::StrAppend(&help, "  --", name, std::string(22 - name.size(), ' '), flag->Help(),
                      value.empty() ? "" : absl::StrCat(" (", value, ")"), "\n");
    }
  }
  absl::StrAppend(&help, "\n  --flagfile=FILE         read more flags from a file\n", "  --help, --version\n");
  return help;
}

// Abseil's own --help lists the flags of every library and fails.
void AnswerHelpAndVersion(int argc, char** argv) {
  for (int i = 1; i < argc && absl::string_view(argv[i]) != "--"; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--help" || argument == "-help" || argument == "-h") {
      std::cout << Help() << std::flush;
      std::exit(0);
    }
    if (argument == "--version" || argument == "-version") {
      std::cout << "attnd " << kVersion << std::endl;
      std::exit(0);
    }
  }
}

}  // namespace

absl::StatusOr<Options> OptionsFromCommandLine(int argc, char** argv) {
  AnswerHelpAndVersion(argc, argv);
  const std::vector<char*> positional = absl::ParseCommandLine(argc, argv);
  if (positional.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("expected flags only, got \"", positional[1], "\""));
  }
  Options options;
  options.listen = absl::GetFlag(FLAGS_listen);
  const absl::StatusOr<mode_t> mode = ParseSocketMode(absl::GetFlag(FLAGS_unix_socket_mode));
  if (!mode.ok())
    return InvalidField("--unix_socket_mode", "octal permissions such as 0660", absl::GetFlag(FLAGS_unix_socket_mode));
  options.unix_socket_mode = *mode;
  options.shared_memory = absl::GetFlag(FLAGS_shared_memory);
  options.model_root = absl::GetFlag(FLAGS_model_root);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.kernel = absl::GetFlag(FLAGS_kernel);
  options.drain = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds));
  options.log_level = absl::GetFlag(FLAGS_log_level);
  options.limits.max_request_bytes = absl::GetFlag(FLAGS_max_request_bytes).bytes;
  options.limits.max_result_bytes = absl::GetFlag(FLAGS_max_result_bytes).bytes;
  options.limits.max_inflight_bytes = absl::GetFlag(FLAGS_max_inflight_bytes).bytes;
  options.limits.max_dim = absl::GetFlag(FLAGS_max_dim);
  options.limits.max_head_dim = absl::GetFlag(FLAGS_max_head_dim);
  options.limits.max_models = absl::GetFlag(FLAGS_max_models);
  options.limits.max_table_values = absl::GetFlag(FLAGS_max_table_values);
  options.limits.max_bias_cells = absl::GetFlag(FLAGS_max_bias_cells);
  options.limits.max_model_file_bytes = absl::GetFlag(FLAGS_max_model_file_bytes).bytes;
  options.limits.max_shared_bytes = absl::GetFlag(FLAGS_max_shared_bytes).bytes;
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  return options;
}

}  // namespace attnd::server
