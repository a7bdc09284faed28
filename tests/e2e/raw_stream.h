// A gRPC call of any kind by hand: messages as bytes, in the order that a test wants, each wait bounded.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "grpcpp/grpcpp.h"

namespace attnd::e2e {

// Begins the call, with its headers alone. What does not come within a test's patience is a failure that is reported,
// and then treated as the call's end. The destructor cancels the call unless it has ended. Not thread-safe.
class RawStream {
 public:
  // `timeout`: none for a call without a deadline.
  RawStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
            std::optional<std::chrono::milliseconds> timeout = std::nullopt);
  ~RawStream();
  RawStream(const RawStream&) = delete;
  RawStream& operator=(const RawStream&) = delete;

  // Whether the message has left. False once the call has ended.
  bool Write(const std::string& message);
  // No message follows.
  void WritesDone();
  // The next answer; nullopt at the call's end.
  std::optional<std::string> Read();
  // How the call ended, after reading what is left.
  grpc::Status Finish();
  void Cancel();

 private:
  class Call;
  grpc::ClientContext context_;
  std::shared_ptr<Call> call_;
  std::optional<grpc::Status> status_;
};

// A channel with a connection of its own, whose streams take 64 KiB that nobody has read and no more.
std::shared_ptr<grpc::Channel> ChannelOfSmallWindows(const std::string& address);

}  // namespace attnd::e2e
