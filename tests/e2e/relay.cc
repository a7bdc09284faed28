#include "relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Counts the pings in what a client sends: a preface of 24 bytes, then frames (RFC 9113, 4.1).
class PingCounter {
 public:
  int Feed(const char* bytes, std::size_t size) {
    int pings = 0;
    for (std::size_t i = 0; i < size; ++i) {
      if (skip_ > 0) {
        --skip_;
        continue;
      }
      header_.push_back(static_cast<unsigned char>(bytes[i]));
      if (header_.size() < 9) continue;
      skip_ = std::size_t{header_[0]} << 16 | std::size_t{header_[1]} << 8 | header_[2];
      if (header_[3] == 6 && (header_[4] & 1) == 0) ++pings;
      header_.clear();
    }
    return pings;
  }

 private:
  std::size_t skip_ = 24;
  std::vector<unsigned char> header_;
};

struct Pair {
  int client;
  int server;
  PingCounter counter;
  ~Pair() {
    close(client);
    close(server);
  }
};

// A peer that takes nothing keeps neither the relay's thread nor its destructor for longer.
void SetPatience(int fd) {
  const timeval time = absl::ToTimeval(test::Patience());
  EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), 0);
  EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)), 0);
}

bool SendAll(int to, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = send(to, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

}  // namespace

int ConnectTo(const std::string& server) {
  const sockaddr_in address = Loopback(std::stoi(server.substr(server.rfind(':') + 1)));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  SetPatience(fd);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

Relay::Relay(const std::string& server, const std::string& from)
    : server_port_(std::atoi(server.substr(server.rfind(':') + 1).c_str())), from_(from) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener_, 64), 0);
  EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  thread_ = std::thread([this] { Run(); });
}

Relay::~Relay() {
  ending_.store(true);
  thread_.join();
  close(listener_);
}

void Relay::Run() {
  std::vector<std::unique_ptr<Pair>> pairs;
  std::vector<char> buffer(1 << 16);
  while (!ending_.load()) {
    std::vector<pollfd> polls = {{listener_, POLLIN, 0}};
    for (const auto& pair : pairs) {
      polls.push_back({pair->client, POLLIN, 0});
      polls.push_back({pair->server, POLLIN, 0});
    }
    constexpr int kLookMilliseconds = 10;  // at what the other threads say
    const bool silent = silent_.load();
    for (pollfd& look : polls) look.events = static_cast<short>(silent ? POLLRDHUP : POLLIN);
    poll(polls.data(), polls.size(), kLookMilliseconds);
    if (silent) {
      for (std::size_t p = 0; p < pairs.size(); ++p) {
        if (polls[2 + 2 * p].revents != 0) hung_up_.store(true);
      }
      continue;
    }
    std::vector<std::unique_ptr<Pair>> open;
    for (std::size_t p = 0; p < pairs.size(); ++p) {
      bool alive = true;
      for (const bool from_client : {true, false}) {
        if (polls[1 + 2 * p + (from_client ? 0 : 1)].revents == 0) continue;
        const ssize_t size = recv(from_client ? pairs[p]->client : pairs[p]->server, buffer.data(), buffer.size(), 0);
        alive = alive && size > 0;
        if (size <= 0) continue;
        if (from_client) pings_ += pairs[p]->counter.Feed(buffer.data(), static_cast<std::size_t>(size));
        alive = alive && SendAll(from_client ? pairs[p]->server : pairs[p]->client, buffer.data(),
                                 static_cast<std::size_t>(size));
      }
      if (alive) open.push_back(std::move(pairs[p]));
    }
    pairs = std::move(open);
    if (polls[0].revents == 0) continue;
    auto pair = std::make_unique<Pair>();
    pair->client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    pair->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (const int fd : {pair->client, pair->server}) SetPatience(fd);
    if (!from_.empty()) {
      sockaddr_in own = Loopback(0);
      EXPECT_EQ(inet_pton(AF_INET, from_.c_str(), &own.sin_addr), 1);
      EXPECT_EQ(bind(pair->server, reinterpret_cast<const sockaddr*>(&own), sizeof(own)), 0);
    }
    const sockaddr_in server = Loopback(server_port_);
    if (connect(pair->server, reinterpret_cast<const sockaddr*>(&server), sizeof(server)) != 0) continue;
    ++connections_;
    pairs.push_back(std::move(pair));
  }
}

}  // namespace attnd::e2e
