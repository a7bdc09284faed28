// A caller over the socket PATH.shm (attnd/v1/local.proto). For tests that link attnd_proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "attnd/v1/local.pb.h"
#include "gtest/gtest.h"
#include "raw_caller.h"

namespace attnd::test {

inline std::string Hello(std::uint32_t version = 1) {
  v1::LocalRequest request;
  request.mutable_hello()->set_version(version);
  request.mutable_hello()->set_user_agent("test");
  return request.SerializeAsString();
}

inline v1::LocalRequest CallOf(std::uint64_t id, const v1::ComputeAttentionRequest& what) {
  v1::LocalRequest request;
  request.mutable_call()->set_id(id);
  *request.mutable_call()->mutable_request() = what;
  return request;
}

inline std::string CancelOf(std::uint64_t id) {
  v1::LocalRequest request;
  request.mutable_cancel()->set_id(id);
  return request.SerializeAsString();
}

// As RawCaller.
class LocalCaller {
 public:
  explicit LocalCaller(const std::string& path) : raw_(path) {}

  const RawCaller& raw() const { return raw_; }
  bool Send(const v1::LocalRequest& request) const { return raw_.Send(request.SerializeAsString()); }

  // The welcome; one with code -1 if none comes.
  v1::LocalWelcome Greet(std::uint32_t version = 1) const {
    v1::LocalWelcome none;
    none.set_code(-1);
    if (!raw_.Send(Hello(version))) return none;
    const std::optional<v1::LocalReply> reply = Receive();
    return reply.has_value() && reply->has_welcome() ? reply->welcome() : none;
  }

  // Nullopt once the server has closed the connection.
  std::optional<v1::LocalReply> Receive() const {
    const std::optional<std::string> bytes = raw_.ReceiveBytes();
    v1::LocalReply reply;
    if (!bytes.has_value()) return std::nullopt;
    EXPECT_LE(bytes->size(), 65536U);
    EXPECT_TRUE(reply.ParseFromString(*bytes));
    return reply;
  }

  // The next answer; one with code -1 if none comes.
  v1::LocalAnswer Answer() const {
    const std::optional<v1::LocalReply> reply = Receive();
    if (reply.has_value() && reply->has_answer()) return reply->answer();
    v1::LocalAnswer none;
    none.set_code(-1);
    return none;
  }

  v1::LocalAnswer Call(const v1::ComputeAttentionRequest& request, std::uint64_t id = 1) const {
    EXPECT_TRUE(Send(CallOf(id, request)));
    v1::LocalAnswer answer = Answer();
    EXPECT_EQ(answer.id(), id);
    return answer;
  }

 private:
  RawCaller raw_;
};

}  // namespace attnd::test
