#include "server/net/address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "attnd/shm/unique_fd.h"
#include "server/net/unix_socket.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

absl::Status CannotListen(const std::string& address, absl::string_view reason) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", reason));
}

// gRPC removes whatever socket file it finds before it binds, also that of a server that is running.
absl::Status CheckUnix(const std::string& address, const std::string& path) {
  const absl::StatusOr<sockaddr_un> name = SocketAddress(path);
  if (!name.ok()) return CannotListen(address, name.status().message());
  const std::size_t slash = path.rfind('/');
  const std::string folder = path.substr(0, slash == std::string::npos ? 0 : slash);
  if (!folder.empty() && access(folder.c_str(), W_OK | X_OK) != 0) {
    return CannotListen(address, absl::StrCat(folder, ": ", std::strerror(errno)));
  }
  if (SomebodyAnswersAt(*name)) return CannotListen(address, "another process listens on it");
  return absl::OkStatus();
}

absl::Status CheckTcp(const std::string& address, const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &list); code != 0) {
    return CannotListen(address, gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, &freeaddrinfo);
  const shm::UniqueFd probe(socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(probe.get(), list->ai_addr, list->ai_addrlen) != 0) return CannotListen(address, std::strerror(errno));
  return absl::OkStatus();
}

// Host and port of "host:port" or "[v6]:port".
std::pair<std::string, std::string> SplitHostPort(absl::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return {std::string(address), ""};
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return {std::string(host), std::string(address.substr(colon + 1))};
}

}  // namespace

std::optional<std::string> UnixPathOf(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "unix:")) return std::nullopt;
  if (address.substr(0, 3) == "///") address.remove_prefix(2);
  return std::string(address);
}

absl::Status CheckAddress(const std::string& address) {
  if (UnixPathOf(address).has_value()) return absl::OkStatus();
  const auto [host, port] = SplitHostPort(address);
  std::uint32_t number;
  if (!host.empty() && absl::SimpleAtoi(port, &number) && number <= 65535) return absl::OkStatus();
  return InvalidField("--listen", "host:port or unix:path, separated by commas", address);
}

absl::Status CheckCanListen(const std::string& address) {
  if (const std::optional<std::string> path = UnixPathOf(address)) return CheckUnix(address, *path);
  const auto [host, port] = SplitHostPort(address);
  return CheckTcp(address, host, port);
}

std::string WithPort(const std::string& address, int port) {
  if (UnixPathOf(address).has_value()) return address;
  return absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
}

}  // namespace attnd::server
