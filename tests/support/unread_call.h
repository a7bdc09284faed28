// A unary gRPC call whose answer nobody reads, in HTTP/2 by hand: gRPC's own clients read whatever comes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "attnd/shm/unique_fd.h"

namespace attnd::test {

// Calls `method` ("/package.Service/Method") with `message` at a server on 127.0.0.1. It never grants the answer more
// than HTTP/2's first 64 KiB, so that the write of a longer answer does not end until the call is cancelled. The
// destructor closes the connection.
class UnreadCall {
 public:
  UnreadCall(const std::string& address, const std::string& method, const std::string& message)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(static_cast<in_port_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str())));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&server), sizeof(server)) != 0) return;
    std::string headers;
    for (const auto& [name, value] :
         std::vector<std::pair<std::string, std::string>>{{":method", "POST"},
                                                          {":scheme", "http"},
                                                          {":path", method},
                                                          {":authority", "x"},
                                                          {"te", "trailers"},
                                                          {"content-type", "application/grpc"}}) {
      headers += std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
    }
    constexpr char kSettings = 4, kHeaders = 1, kData = 0, kEndOfHeaders = 4, kEndOfStream = 1;
    const std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "") +
                              Frame(kHeaders, kEndOfHeaders, 1, headers) +
                              Frame(kData, kEndOfStream, 1, '\0' + Number(message.size(), 4) + message);
    sent_ = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }

  bool sent() const { return sent_; }

 private:
  static std::string Number(std::size_t value, int bytes) {
    std::string text;
    for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i) & 0xff);
    return text;
  }
  // Payloads of up to 16 KiB.
  static std::string Frame(char type, char flags, std::size_t stream, const std::string& payload) {
    return Number(payload.size(), 3) + type + flags + Number(stream, 4) + payload;
  }

  shm::UniqueFd fd_;
  bool sent_ = false;
};

}  // namespace attnd::test
