#include "server/config/flags.h"

#include <algorithm>
#include <cstddef>
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
#include "files/standard_streams.h"
#include "server/config/byte_size.h"
#include "server/config/version.h"
#include "server/net/unix_socket.h"
#include "server/rpc/status.h"

using attnd::server::Limits;

namespace attnd::server {
namespace {

// The flag type of each unit of a limit.
struct BytesFlag {
  using Type = ByteSize;
  static Type From(std::int64_t value) { return {value}; }
  static std::int64_t ValueOf(Type flag) { return flag.bytes; }
};
// The default is 0: computed from the machine.
struct FittedBytesFlag : BytesFlag {
  static Type From(std::int64_t) { return {0}; }
};
struct CountFlag {
  using Type = std::int64_t;
  static Type From(std::int64_t value) { return value; }
  static std::int64_t ValueOf(Type flag) { return flag; }
};
struct FittedCountFlag : CountFlag {
  static Type From(std::int64_t) { return 0; }
};

}  // namespace
}  // namespace attnd::server

ABSL_FLAG(std::vector<std::string>, listen, {"127.0.0.1:50051"},
          "where to listen, separated by commas: host:port (port 0: any free one), [v6]:port, unix:path");
ABSL_FLAG(std::string, model_root, "",
          "folder of models; what lies directly in it is loaded at start, and LoadModel may not leave it");
ABSL_FLAG(bool, strict_models, false,
          "do not start unless every model in the model root can be loaded, and there is one");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: the CPUs this process may use");
ABSL_FLAG(std::string, kernel, "", "kernel to use instead of the best one for this CPU (as ATTND_KERNEL)");
ABSL_FLAG(double, drain_seconds, 30, "how long a stopping server waits for the calls it has accepted");
ABSL_FLAG(absl::Duration, keepalive_time, attnd::server::Options().keepalive_time,
          "silence after which a client is pinged; inf: never");
ABSL_FLAG(absl::Duration, keepalive_timeout, attnd::server::Options().keepalive_timeout,
          "how long a pinged client may stay silent before its connection is closed");
ABSL_FLAG(absl::Duration, min_ping_interval, attnd::server::Options().min_ping_interval,
          "clients that ping more often are disconnected");
ABSL_FLAG(absl::Duration, handshake_time, attnd::server::Options().handshake_time,
          "how long a new connection may take until its client speaks HTTP/2");
ABSL_FLAG(absl::Duration, max_connection_idle, attnd::server::Options().max_connection_idle,
          "when a connection without calls is closed; inf: never");
ABSL_FLAG(absl::Duration, max_connection_age, attnd::server::Options().max_connection_age,
          "when a client is to make a new connection, give or take 10%; inf: never");
ABSL_FLAG(absl::Duration, max_connection_age_grace, attnd::server::Options().max_connection_age_grace,
          "how long calls may go on then, on the old one; inf: until they end");
ABSL_FLAG(double, stall_seconds, absl::ToDoubleSeconds(attnd::server::Options().stall),
          "how long a result may wait until its caller has taken it, beside its bytes / min_rate; 0 or inf: forever");
ABSL_FLAG(attnd::server::ByteSize, min_rate, attnd::server::ByteSize{attnd::server::Options().min_rate},
          "bytes of a result that a caller must take in a second, where stall_seconds are over");
ABSL_FLAG(absl::Duration, max_queue_time, attnd::server::Options().max_queue_time,
          "how long a call without a deadline may wait to be computed; it is refused at once if it would be longer");
ABSL_FLAG(
    bool, receive_ahead, true,
    "clients may send some MiB of a call before it is let in, not 64 KiB: faster over distances, dearer to refuse");
ABSL_FLAG(std::int64_t, max_sessions, attnd::server::Options().max_sessions, "most sessions at a time; 0: none");
ABSL_FLAG(std::int64_t, max_peer_sessions, attnd::server::Options().max_peer_sessions,
          "most sessions of one peer at a time");
ABSL_FLAG(absl::Duration, session_idle, attnd::server::Options().session_idle,
          "when a session without a step is ended; inf: never");
ABSL_FLAG(absl::Duration, session_lease, attnd::server::Options().session_lease,
          "idle for longer than this, a session may be ended where another one that opens finds no room; inf: never");
ABSL_FLAG(absl::Duration, session_grace, attnd::server::Options().session_grace,
          "for how long a session whose connection is lost may be kept, where its client asks for that; 0: not at all");
ABSL_FLAG(absl::Duration, session_life, attnd::server::Options().session_life,
          "how old a session may become; inf: any age");
ABSL_FLAG(std::string, unix_socket_mode, "0660", "permissions of unix: sockets, octal");
ABSL_FLAG(bool, shared_memory, true, "take tensors in memory that callers share, at sockets beside unix: ones");
ABSL_FLAG(bool, local_calls, true, "take calls without gRPC at the same sockets");
ABSL_FLAG(bool, peer_shares, true, "one peer may hold no more memory than stays free for others: alone half of it");
ABSL_FLAG(std::vector<std::string>, trusted_proxies, {},
          "addresses and ranges (10.0.0.0/8) of proxies whose x-forwarded-for says who the peer is");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warn, error or off");

#define ATTND_LIMIT(name, unit, value, lowest, highest, help) \
  ABSL_FLAG(attnd::server::unit##Flag::Type, name, attnd::server::unit##Flag::From(Limits().name), help);
#define ATTND_FIXED_LIMIT(name, value)
#include "attnd/limits.inc"

// Abseil's hook for a bad command line, called before it ends the process with status 1.
extern "C" void ABSL_INTERNAL_C_SYMBOL(AbslInternalReportFatalUsageError)(absl::string_view) {
  std::cerr << "Try 'attnd --help'." << std::endl;
  std::exit(2);
}

namespace attnd::server {
namespace {

using Names = std::vector<absl::string_view>;

Names NamesOfLimits() {
  Names names;
  for (const LimitRow& row : LimitRows()) {
    if (row.has_flag) names.emplace_back(row.name);
  }
  return names;
}

// Appends one line of help for each flag, with the descriptions aligned.
void Describe(absl::string_view title, const Names& flags, std::string& help) {
  absl::StrAppend(&help, "\n", title, ":\n");
  std::size_t longest = 0;
  for (const absl::string_view name : flags) longest = std::max(longest, name.size());
  for (const absl::string_view name : flags) {
    const absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(name);
    const std::string value = flag->DefaultValue();
    absl::StrAppend(&help, "  --", name, std::string(longest + 2 - name.size(), ' '), flag->Help(),
                    value.empty() ? "" : absl::StrCat(" (", value, ")"), "\n");
  }
}

std::string Help() {
  std::string help =
      "attnd: attention with learned relative-position bias, over gRPC\n"
      "\n"
      "  attnd [--listen ADDRESS,...] [--model_root FOLDER] [--threads N]\n"
      "\n"
      "SIGTERM and SIGINT stop it once the calls it has accepted are answered; a second one stops it at once.\n";
  Describe(
      "Serving",
      {"listen", "unix_socket_mode", "shared_memory", "local_calls", "model_root", "strict_models", "threads", "kernel",
       "max_queue_time", "receive_ahead", "peer_shares", "trusted_proxies", "drain_seconds", "log_level"},
      help);
  Describe("Connections (times such as 500ms, 30s, 5m or inf)",
           {"keepalive_time", "keepalive_timeout", "min_ping_interval", "handshake_time", "max_connection_idle",
            "max_connection_age", "max_connection_age_grace", "stall_seconds", "min_rate"},
           help);
  Describe("Sessions (keys and values that the server keeps)",
           {"max_sessions", "max_peer_sessions", "session_lease", "session_idle", "session_life", "session_grace"},
           help);
  Describe("Limits (a call beyond one is refused; GetServerInfo lists them)", NamesOfLimits(), help);
  absl::StrAppend(&help, "\n  --flagfile=FILE  read more flags from a file\n", "  --help, --version\n");
  return help;
}

// Prints `text` and exits.
[[noreturn]] void Answer(const std::string& text) {
  const absl::Status written = files::WriteStandardOutput(text);
  if (!written.ok()) std::cerr << "attnd: " << written.message() << std::endl;
  std::exit(written.ok() ? 0 : 1);
}

// Abseil's own --help lists the flags of every library and fails.
void AnswerHelpAndVersion(int argc, char** argv) {
  for (int i = 1; i < argc && absl::string_view(argv[i]) != "--"; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--help" || argument == "-help" || argument == "-h") {
      Answer(Help());
    }
    if (argument == "--version" || argument == "-version") {
      Answer(absl::StrCat("attnd ", kVersion, "\n"));
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
  options.local_calls = absl::GetFlag(FLAGS_local_calls);
  options.peer_shares = absl::GetFlag(FLAGS_peer_shares);
  options.trusted_proxies = absl::GetFlag(FLAGS_trusted_proxies);
  options.model_root = absl::GetFlag(FLAGS_model_root);
  options.strict_models = absl::GetFlag(FLAGS_strict_models);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.kernel = absl::GetFlag(FLAGS_kernel);
  options.drain = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds));
  options.keepalive_time = absl::GetFlag(FLAGS_keepalive_time);
  options.keepalive_timeout = absl::GetFlag(FLAGS_keepalive_timeout);
  options.min_ping_interval = absl::GetFlag(FLAGS_min_ping_interval);
  options.handshake_time = absl::GetFlag(FLAGS_handshake_time);
  options.max_connection_idle = absl::GetFlag(FLAGS_max_connection_idle);
  options.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  options.max_connection_age_grace = absl::GetFlag(FLAGS_max_connection_age_grace);
  options.max_queue_time = absl::GetFlag(FLAGS_max_queue_time);
  options.receive_ahead = absl::GetFlag(FLAGS_receive_ahead);
  options.max_sessions = absl::GetFlag(FLAGS_max_sessions);
  options.max_peer_sessions = absl::GetFlag(FLAGS_max_peer_sessions);
  options.session_idle = absl::GetFlag(FLAGS_session_idle);
  options.session_lease = absl::GetFlag(FLAGS_session_lease);
  options.session_grace = absl::GetFlag(FLAGS_session_grace);
  options.session_life = absl::GetFlag(FLAGS_session_life);
  options.stall = absl::Seconds(absl::GetFlag(FLAGS_stall_seconds));
  options.min_rate = absl::GetFlag(FLAGS_min_rate).bytes;
  options.log_level = absl::GetFlag(FLAGS_log_level);
#define ATTND_LIMIT(name, unit, ...) options.limits.name = unit##Flag::ValueOf(absl::GetFlag(FLAGS_##name));
#define ATTND_FIXED_LIMIT(name, value)
#include "attnd/limits.inc"
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  return options;
}

}  // namespace attnd::server
