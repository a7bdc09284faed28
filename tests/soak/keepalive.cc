// How long a client with its default settings waits for a server that does not answer any more, by the clock.
//   keepalive_check --server ADDRESS --pid PID
// Calls the server, stops its process (SIGSTOP: its sockets stay open), calls again with a small request, which the
// system's buffers take, and then with one that they do not; each must end with UNAVAILABLE in the time that
// ClientOptions promises. The process goes on afterwards.
#include <signal.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"

ABSL_FLAG(std::string, server, "", "host:port");
ABSL_FLAG(int, pid, 0, "the server's process");

namespace attnd {
namespace {

// gRPC's timers and a busy machine.
constexpr absl::Duration kSlack = absl::Seconds(8);

absl::Status Call(const std::string& name, std::int64_t rows, absl::Duration least, absl::Duration most) {
  ClientOptions options;
  options.user_agent = name;  // a connection of its own
  options.retry.enabled = false;
  Client client = *Client::Create(absl::GetFlag(FLAGS_server), options);
  if (const auto info = client.GetServerInfo(); !info.ok()) return info.status();

  const std::vector<float> values(static_cast<std::size_t>(rows * 8 * 64));
  ComputeRequest request;
  request.model = "t5-tiny";
  request.q = request.k = request.v = {values.data(), DType::kFp32, {1, 8, rows, 64}};
  const pid_t pid = absl::GetFlag(FLAGS_pid);
  kill(pid, SIGSTOP);
  const absl::Time start = absl::Now();
  const absl::Status status = client.Compute(request).status();
  const absl::Duration took = absl::Now() - start;
  kill(pid, SIGCONT);
  std::printf("%s: %s after %s\n", name.c_str(), absl::StatusCodeToString(status.code()).c_str(),
              absl::FormatDuration(absl::Trunc(took, absl::Milliseconds(100))).c_str());
  if (status.code() != absl::StatusCode::kUnavailable) return absl::InternalError("expected UNAVAILABLE");
  if (took < least || took > most + kSlack) {
    return absl::InternalError(
        absl::StrCat("expected ", absl::FormatDuration(least), " to ", absl::FormatDuration(most)));
  }
  return absl::OkStatus();
}

int Main() {
  const ClientOptions defaults;
  const absl::Duration until_given_up = defaults.keepalive_time + defaults.keepalive_timeout;
  for (const absl::Status& status :
       {Call("a small request", 1, defaults.keepalive_time, until_given_up),
        Call("a request beyond the buffers", 65536, defaults.keepalive_timeout, until_given_up)}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace attnd

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return attnd::Main();
}
