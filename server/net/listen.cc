#include "server/net/listen.h"

#include <sys/socket.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/net/address.h"
#include "server/net/tcp_socket.h"
#include "server/rpc/status_macros.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

absl::Status ListenAtOne(const std::string& text, const Address& address, const ListenOptions& options,
                         Listening& listening) {
  if (address.unix_path.has_value()) {
    ATTND_ASSIGN_OR_RETURN(ListeningSocket socket, ListenUnix(*address.unix_path, SOCK_STREAM, options.unix_mode));
    listening.sockets.push_back(std::move(socket));
    listening.addresses.push_back(text);
    return absl::OkStatus();
  }
  ATTND_ASSIGN_OR_RETURN(TcpSockets tcp, ListenTcp(address.host, address.port, options.tcp_user_timeout));
  for (const std::string& missing : tcp.missing) spdlog::warn("{}: does not listen on {}", text, missing);
  for (shm::UniqueFd& fd : tcp.fds) listening.sockets.push_back({nullptr, std::move(fd)});
  listening.addresses.push_back(WithPort(text, tcp.port));
  return absl::OkStatus();
}

std::filesystem::path WholePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  return error ? std::filesystem::path(path) : whole;
}

// Whether the two addresses may conflict.
bool MayMeet(const std::string& one_text, const std::string& other_text) {
  const absl::StatusOr<Address> one = ParseAddress(one_text), other = ParseAddress(other_text);
  if (!one.ok() || !other.ok() || one->unix_path.has_value() != other->unix_path.has_value()) return false;
  if (one->unix_path.has_value()) return WholePath(*one->unix_path) == WholePath(*other->unix_path);
  return one->port == other->port;
}

}  // namespace

absl::StatusOr<Listening> ListenAt(const std::vector<std::string>& addresses, const ListenOptions& options) {
  Listening listening;
  for (const std::string& text : addresses) {
    ATTND_ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    const absl::Status status = ListenAtOne(text, address, options, listening);
    if (status.ok()) continue;
    std::string message = absl::StrCat("cannot listen on ", text, ": ", status.message());
    for (const std::string& before : listening.addresses) {
      if (MayMeet(before, text)) absl::StrAppend(&message, " (--listen names ", before, " too)");
    }
    return absl::UnavailableError(message);
  }
  return listening;
}

}  // namespace attnd::server
