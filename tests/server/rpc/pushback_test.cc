#include "server/rpc/pushback.h"

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "one_call_server.h"
#include "server/rpc/finish_now.h"

namespace attnd::server {
namespace {

using Trailers = std::map<std::string, std::string>;

// The trailers of pushback that a call which ends with `status` has.
Trailers TrailersOf(const absl::Status& status) {
  OneCallServer server([&](grpc::CallbackServerContext& context, grpc::ByteBuffer*) {
    AddPushback(context, status);
    return FinishNow(context, ToGrpc(status));
  });
  OneCall call(server);
  EXPECT_EQ(static_cast<int>(call.Await().error_code()), static_cast<int>(status.code()));
  Trailers trailers;
  for (const char* name : {"grpc-retry-pushback-ms", contract::kAskTrailer}) {
    if (const std::string value = call.Trailer(name); !value.empty()) trailers[name] = value;
  }
  return trailers;
}

absl::Status Refused(absl::Duration delay) {
  absl::Status status = absl::ResourceExhaustedError("full");
  SetRetryDelay(delay, status);
  return status;
}

TEST(PushbackTest, OnlyARefusalWithADelayHasTrailers) {
  EXPECT_EQ(TrailersOf(absl::OkStatus()), Trailers());
  EXPECT_EQ(TrailersOf(absl::ResourceExhaustedError("never")), Trailers());
  EXPECT_EQ(TrailersOf(StoppingError()), Trailers());
}

TEST(PushbackTest, TheDelayIsRoundedUpToMilliseconds) {
  for (const auto& [delay, shown] : {std::pair{absl::Nanoseconds(1), "1"},
                                     {absl::Milliseconds(1), "1"},
                                     {absl::Milliseconds(1) + absl::Nanoseconds(1), "2"},
                                     {absl::Milliseconds(250), "250"},
                                     {absl::Seconds(30), "30000"}}) {
    EXPECT_EQ(TrailersOf(Refused(delay)), (Trailers{{"grpc-retry-pushback-ms", shown}, {contract::kAskTrailer, "1"}}));
  }
}

}  // namespace
}  // namespace attnd::server
