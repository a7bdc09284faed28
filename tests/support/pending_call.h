// A unary gRPC call by method name that is under way while the test goes on, with messages as they are on the wire.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace attnd::test {

// Begins in the constructor. The destructor cancels it.
class PendingCall {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  // `method` as "/package.Service/Method". Has a deadline in any case, so that a failing test does not hang.
  PendingCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& request,
              absl::Duration time = kPatience, const Headers& headers = {}) {
    for (const auto& [name, value] : headers) context_.AddMetadata(name, value);
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(time));
    const grpc::Slice slice(request);
    request_ = grpc::ByteBuffer(&slice, 1);
    grpc::GenericStub(channel).UnaryCall(&context_, method, grpc::StubOptions(), &request_, &answer_,
                                         [this](grpc::Status status) {
                                           status_ = std::move(status);
                                           done_.Notify();
                                         });
  }
  ~PendingCall() {
    context_.TryCancel();
    done_.WaitForNotification();
  }
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;

  bool done() const { return done_.HasBeenNotified(); }
  void Cancel() { context_.TryCancel(); }
  // Waits for the end.
  const grpc::Status& Await() {
    EXPECT_TRUE(done_.WaitForNotificationWithTimeout(2 * kPatience)) << "a call does not end";
    return status_;
  }
  grpc::StatusCode Code() { return Await().error_code(); }

  // After its end.
  const grpc::ByteBuffer& answer() const { return answer_; }
  std::string Trailer(const std::string& name) const {
    const auto found = context_.GetServerTrailingMetadata().find(name);
    if (found == context_.GetServerTrailingMetadata().end()) return "";
    return std::string(found->second.data(), found->second.size());
  }

 private:
  static constexpr absl::Duration kPatience = absl::Seconds(20);

  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  absl::Notification done_;
};

}  // namespace attnd::test
