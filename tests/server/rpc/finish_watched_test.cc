#include "server/rpc/finish_watched.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "gtest/gtest.h"
#include "one_call_server.h"
#include "unread_call.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;

// gRPC stays up until the process ends: where its last user goes just after a large write, it waits ten seconds.
[[maybe_unused]] const bool kGrpcIsUp = (grpc_init(), true);

// Answers each call with `bytes` and `status`.
class FinishWatchedTest : public testing::Test {
 protected:
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext& context, grpc::ByteBuffer* answer) {
    const grpc::Slice slice(std::string(bytes_, 'a'));
    *answer = grpc::ByteBuffer(&slice, 1);
    return FinishWatched(context, stalls_, static_cast<std::int64_t>(bytes_), status_);
  }
  std::int64_t stalled() const { return counters_.stalled_writes.load(); }

  std::size_t bytes_ = 10;
  grpc::Status status_;
  Counters counters_;
  StallWatch stalls_{{.patience = absl::Milliseconds(40), .bytes_per_second = 1 << 30}, counters_, [](const auto&) {}};
  OneCallServer server_{[this](auto& context, grpc::ByteBuffer* answer) { return Answer(context, answer); }};
};

TEST_F(FinishWatchedTest, TheCallHasItsAnswerOrItsError) {
  OneCall answered(server_);
  EXPECT_TRUE(answered.Await().ok());
  EXPECT_EQ(answered.answer().Length(), bytes_);
  status_ = grpc::Status(StatusCode::NOT_FOUND, "no such", "details");
  OneCall refused(server_);
  EXPECT_EQ(refused.Await().error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(refused.Await().error_message(), "no such");
  EXPECT_EQ(refused.Await().error_details(), "details");
}

// The watch knows of no call that is over: what it finds later are others. On a busy machine it finds a few just when
// they end.
TEST_F(FinishWatchedTest, AnAnswerThatIsNotReadEndsAndThoseThatWereReadAreForgotten) {
  constexpr int kCalls = 50;
  int answered = 0;
  for (int i = 0; i < kCalls; ++i) answered += OneCall(server_).Await().ok() ? 1 : 0;
  bytes_ = std::size_t{4} << 20;  // more than the transport takes
  for (int i = 0; i < 3; ++i) {
    const std::int64_t before = stalled();
    const test::UnreadCall unread(server_.address(), kOneMethod, "");
    ASSERT_TRUE(unread.sent());
    EXPECT_TRUE(test::Becomes([&] { return stalled() > before; })) << "it is not ended";
  }
  EXPECT_LE(stalled(), kCalls - answered + 3 + answered / 2) << answered;
  EXPECT_TRUE(test::Ends([this] { server_.Stop(); })) << "a call is not over";
}

}  // namespace
}  // namespace attnd::server
