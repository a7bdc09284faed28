// A relay of TCP connections, on the way between a client and a server, that can fall silent.
#pragma once

#include <atomic>
#include <string>
#include <thread>

namespace attnd::e2e {

// A TCP connection to `server` ("127.0.0.1:port") for bytes by hand, which the caller closes; -1 if there is none. A
// recv or send of it waits for test::Patience() at most (EAGAIN).
int ConnectTo(const std::string& server);

// Relays to `server` ("127.0.0.1:port") until destroyed, as from the address `from` if one is given ("127.0.0.2"). Once
// silent it takes no byte and passes none on, and its connections stay open. Thread-safe but for its destruction.
class Relay {
 public:
  explicit Relay(const std::string& server, const std::string& from = "");
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  const std::string& address() const { return address_; }
  void FallSilent() { silent_.store(true); }
  // HTTP/2 PING frames from clients, answers to pings not counted.
  int pings() const { return pings_.load(); }
  int connections() const { return connections_.load(); }
  // Whether the server has closed a connection since the relay fell silent.
  bool ServerHungUp() const { return hung_up_.load(); }

 private:
  void Run();

  std::string address_;
  int listener_ = -1;
  int server_port_ = 0;
  const std::string from_;
  std::atomic<bool> silent_{false};
  std::atomic<bool> ending_{false};
  std::atomic<bool> hung_up_{false};
  std::atomic<int> pings_{0};
  std::atomic<int> connections_{0};
  std::thread thread_;
};

}  // namespace attnd::e2e
