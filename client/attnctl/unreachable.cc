#include "client/attnctl/unreachable.h"

#include <cstddef>

#include "absl/strings/match.h"

namespace attnd::ctl {
namespace {

struct Reason {
  const char* part;   // part of gRPC's message
  const char* words;  // our words
};

constexpr Reason kReasons[] = {
    {"Connection refused", "nothing listens there"},
    {"No such file or directory", "there is no such socket"},
    {"Permission denied", "you may not use that socket"},
    {"Domain name not found", "there is no host of that name"},
    {"DNS resolution failed", "its name cannot be looked up"},
    {"DNS query cancelled", "its name could not be looked up in time"},
    {"the target uri is not valid", "that is no address"},
    {"http1.x server", "what listens there does not speak gRPC"},
    {"No route to host", "there is no way to that host"},
    {"Network is unreachable", "there is no way to that network"},
    {"imed out", "no answer to the attempt to connect"},
    {"Broken pipe", "the connection was lost"},
    {"Connection reset by peer", "the connection was lost"},
    {"Socket closed", "the connection was lost"},
    {"recvmsg", "the connection was lost"},
    {"GOAWAY", "it is closing its connections"},
    {"keepalive watchdog", "it has stopped answering"},
    {"ping timeout", "it has stopped answering"},
};

}  // namespace

std::string PlainReason(absl::string_view message) {
  for (const Reason& reason : kReasons) {
    if (absl::StrContains(message, reason.part)) return reason.words;
  }
  const std::size_t colon = message.rfind(": ");
  const absl::string_view last = colon == absl::string_view::npos ? message : message.substr(colon + 2);
  return last.empty() ? "gRPC gives no reason" : std::string(last);
}

}  // namespace attnd::ctl
