#include "server/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/status.h"

namespace attnd::server {
namespace {

class Socket {
 public:
  explicit Socket(int family) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

absl::Status CannotListen(const std::string& address, absl::string_view reason) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", reason));
}

// gRPC removes whatever socket file it finds before it binds, also that of a server that is running.
absl::Status CheckUnix(const std::string& address, absl::string_view path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return CannotListen(address, absl::StrCat("expected a path of 1 to ", sizeof(name.sun_path) - 1, " bytes"));
  }
  path.copy(name.sun_path, path.size());
  const std::string folder(path.substr(0, path.rfind('/') == absl::string_view::npos ? 0 : path.rfind('/')));
  if (!folder.empty() && access(folder.c_str(), W_OK | X_OK) != 0) {
    return CannotListen(address, absl::StrCat(folder, ": ", std::strerror(errno)));
  }
  const Socket client(AF_UNIX);
  if (connect(client.fd(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) {
    return CannotListen(address, "another process listens on it");
  }
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
  const Socket probe(list->ai_family);
  const int on = 1;
  setsockopt(probe.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(probe.fd(), list->ai_addr, list->ai_addrlen) != 0) return CannotListen(address, std::strerror(errno));
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

absl::Status CheckAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return absl::OkStatus();
  const auto [host, port] = SplitHostPort(address);
  std::uint32_t number;
  if (!host.empty() && absl::SimpleAtoi(port, &number) && number <= 65535) return absl::OkStatus();
  return InvalidField("--listen", "host:port or unix:path, separated by commas", address);
}

absl::Status CheckCanListen(const std::string& address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, "unix:")) {
    if (absl::StartsWith(path, "///")) path.remove_prefix(2);
    return CheckUnix(address, path);
  }
  const auto [host, port] = SplitHostPort(address);
  return CheckTcp(address, host, port);
}

std::string WithPort(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix:")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
}

}  // namespace attnd::server
