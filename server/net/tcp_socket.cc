#include "server/net/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnd::server {
namespace {

// How many free ports are tried, if one is free at one address of the name but in use at another.
constexpr int kAttempts = 16;

struct Endpoint {
  sockaddr_storage address{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
  int family() const { return address.ss_family; }
};

Endpoint EndpointOf(const addrinfo& info) {
  Endpoint endpoint;
  std::memcpy(&endpoint.address, info.ai_addr, info.ai_addrlen);
  endpoint.size = info.ai_addrlen;
  return endpoint;
}

// The port field of an address, in network byte order.
in_port_t& PortIn(Endpoint& endpoint) {
  auto* const address = &endpoint.address;
  if (endpoint.family() == AF_INET6) return reinterpret_cast<sockaddr_in6*>(address)->sin6_port;
  return reinterpret_cast<sockaddr_in*>(address)->sin_port;
}

bool IsWildcard(const Endpoint& endpoint) {
  const auto* const address = &endpoint.address;
  if (endpoint.family() == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr == htonl(INADDR_ANY);
  }
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  constexpr std::array<std::uint8_t, 16> kMappedAny = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return IN6_IS_ADDR_UNSPECIFIED(&v6) || std::memcmp(&v6, kMappedAny.data(), kMappedAny.size()) == 0;
}

Endpoint Anywhere(int family, int port) {
  Endpoint endpoint;
  endpoint.address.ss_family = static_cast<sa_family_t>(family);
  endpoint.size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  PortIn(endpoint) = htons(static_cast<std::uint16_t>(port));
  return endpoint;
}

std::string HostOf(const Endpoint& endpoint) {
  std::array<char, NI_MAXHOST> host{};
  getnameinfo(endpoint.get(), endpoint.size, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST);
  return endpoint.family() == AF_INET6 ? absl::StrCat("[", host.data(), "]") : host.data();
}

// Whether the system does not have the address or its family, as opposed to refusing it.
bool IsMissing(int error) { return error == EAFNOSUPPORT || error == EADDRNOTAVAIL || error == EPROTONOSUPPORT; }

bool Set(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof(value)) == 0; }

// Collects the sockets of one port. Functions that return int return 0 or the system's error.
class PortSockets {
 public:
  PortSockets(int port, absl::Duration user_timeout) : user_timeout_(user_timeout) { sockets_.port = port; }

  int Add(Endpoint endpoint) {
    const int error = IsWildcard(endpoint) ? AddAnywhere() : AddOne(endpoint);
    if (IsMissing(error)) sockets_.missing.push_back(absl::StrCat(HostOf(endpoint), ": ", std::strerror(error)));
    return error;
  }

  TcpSockets Take() { return std::move(sockets_); }
  bool none() const { return sockets_.fds.empty(); }

 private:
  int AddAnywhere() {
    if (anywhere_) return 0;
    const int six = AddOne(Anywhere(AF_INET6, 0));
    // An IPv6 socket that accepts IPv4 too suffices.
    if (six == 0 && takes_both_) return anywhere_ = true, 0;
    if (six != 0 && !IsMissing(six)) return six;
    const int four = AddOne(Anywhere(AF_INET, 0));
    if (six != 0 && four == 0) sockets_.missing.push_back(absl::StrCat("IPv6: ", std::strerror(six)));
    if (four != 0 && !(six == 0 && IsMissing(four))) return four;
    return anywhere_ = true, 0;
  }

  int AddOne(Endpoint endpoint) {
    shm::UniqueFd fd(socket(endpoint.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return errno;
    if (endpoint.family() == AF_INET6) {
      // Only a wildcard accepts both families, whatever net.ipv6.bindv6only says.
      takes_both_ = IsWildcard(endpoint) && Set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
      if (!takes_both_ && !Set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return errno;
    }
    if (!Set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1) || !Set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1)) return errno;
    if (user_timeout_ > absl::ZeroDuration() &&
        !Set(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(absl::ToInt64Milliseconds(user_timeout_)))) {
      return errno;
    }
    PortIn(endpoint) = htons(static_cast<std::uint16_t>(sockets_.port));
    if (bind(fd.get(), endpoint.get(), endpoint.size) != 0) return errno;
    // The system limits this to net.core.somaxconn.
    if (listen(fd.get(), std::numeric_limits<int>::max()) != 0) return errno;
    Endpoint bound = endpoint;
    if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound.address), &bound.size) != 0) return errno;
    sockets_.port = ntohs(PortIn(bound));
    sockets_.fds.push_back(std::move(fd));
    return 0;
  }

  const absl::Duration user_timeout_;
  TcpSockets sockets_;
  bool anywhere_ = false;
  bool takes_both_ = false;
};

}  // namespace

absl::StatusOr<TcpSockets> ListenTcp(const std::string& host, const std::string& port, absl::Duration user_timeout) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &list); code != 0) {
    return absl::UnavailableError(code == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, &freeaddrinfo);
  Endpoint first = EndpointOf(*list);
  const int number = ntohs(PortIn(first));
  for (int attempt = 1;; ++attempt) {
    PortSockets listening(number, user_timeout);
    std::string failed;
    int error = 0;
    for (const addrinfo* info = list; info != nullptr && (error == 0 || IsMissing(error)); info = info->ai_next) {
      const Endpoint endpoint = EndpointOf(*info);
      error = listening.Add(endpoint);
      if (error != 0) failed = absl::StrCat(HostOf(endpoint), ": ", std::strerror(error));
    }
    if (error == EADDRINUSE && number == 0 && !listening.none() && attempt < kAttempts) continue;
    if ((error != 0 && !IsMissing(error)) || listening.none()) return absl::UnavailableError(failed);
    return listening.Take();
  }
}

}  // namespace attnd::server
