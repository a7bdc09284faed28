// The two lines about a failure: what is wrong, and what to do.
#include "client/attnctl/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_split.h"
#include "attnd/error_detail.h"
#include "client/attnctl/attention_report.h"
#include "client/attnctl/commands.h"
#include "client/attnctl/output.h"
#include "client/attnctl/unreachable.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

class Report : public testing::Test {
 protected:
  Report() { EXPECT_TRUE(flags_.server.Set("there:1").ok()); }

  std::string Said(const absl::Status& status) { return Message(status, &Commands()[0], flags_); }

  Flags flags_;
};

absl::Status SentByServer(absl::Status status) {
  status.SetPayload(kAnsweredUrl, absl::Cord());
  return status;
}

TEST_F(Report, AlwaysTwoLines) {
  for (int code = 1; code <= 16; ++code) {
    for (const char* message : {"", "something"}) {
      const absl::Status status(static_cast<absl::StatusCode>(code), message);
      for (const absl::Status& each :
           {status, SentByServer(status), OutputError(status), WithAdvice(status, "try it"), UsageError("something")}) {
        const std::string said = Said(each);
        const std::vector<std::string> lines = absl::StrSplit(said, '\n');
        ASSERT_EQ(lines.size(), 3U) << said;
        EXPECT_THAT(lines[0], testing::StartsWith("attnctl: "));
        EXPECT_GT(lines[1].size(), 5U) << said;
        EXPECT_EQ(lines[2], "");
        EXPECT_THAT(Message(each, nullptr, flags_), Not(HasSubstr("Deadline Exceeded")));
      }
    }
  }
}

TEST_F(Report, ALineFeedMakesNoThirdLine) {
  EXPECT_THAT(Said(OutputError(absl::NotFoundError("cannot write a\nb\x1b[31m"))),
              testing::StartsWith("attnctl: cannot write a\\x0ab\\x1b[31m\nmake that folder"));
}

TEST_F(Report, AServerThatStopsIsReached) {
  const absl::Status stopping = absl::UnavailableError("the server is stopping; the call was not begun");
  EXPECT_THAT(Said(SentByServer(stopping)), testing::StartsWith("attnctl: there:1: the server is stopping; "));
  EXPECT_THAT(Said(SentByServer(stopping)), HasSubstr("--retry_for"));
  EXPECT_THAT(Said(stopping), HasSubstr("cannot reach"));
}

TEST_F(Report, ALateAnswerIsSaidWithItsTime) {
  ASSERT_TRUE(flags_.timeout.Set("3s").ok());
  EXPECT_THAT(Said(absl::DeadlineExceededError("Deadline Exceeded")),
              testing::StartsWith("attnctl: no answer from there:1 within 3s\nallow it more time with --timeout"));
}

TEST_F(Report, TransposedAxesAreToldOfTheLayout) {
  const absl::Status refused = ErrorWithDetail(absl::StatusCode::kInvalidArgument, {"heads", "8", "16"});
  EXPECT_THAT(Said(refused), HasSubstr("`--layout bshd`; else"));
  ASSERT_TRUE(flags_.layout.Set("bshd").ok());
  EXPECT_THAT(Said(refused), HasSubstr("leave `--layout bshd` out"));
}

TEST(AttentionText, TimesOfPiecesAreCalledASum) {
  const Flags flags;
  const ComputeRequest request;
  ComputeReply reply;
  reply.queue_time = absl::Milliseconds(2);
  reply.compute_time = absl::Seconds(20);
  const Answered answered{request, reply, absl::Seconds(10), flags};
  EXPECT_THAT(AsText(answered, std::nullopt),
              HasSubstr("; server: queued 2ms, computed 20s; whole call 10s, by gRPC\n"));
  reply.pieces = 8;
  EXPECT_THAT(
      AsText(answered, std::nullopt),
      HasSubstr("; server: queued up to 2ms, 8 pieces of work, several at once, of 20s in all; whole call 10s"));
}

TEST(PlainReason, OfWhatGrpcSays) {
  EXPECT_EQ(PlainReason("failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Failed to "
                        "connect to remote host: Connection refused"),
            "nothing listens there");
  EXPECT_EQ(PlainReason("DNS resolution failed for x:1: C-ares status is not ARES_SUCCESS qtype=AAAA name=x "
                        "is_balancer=0: Domain name not found"),
            "there is no host of that name");
  EXPECT_EQ(PlainReason("a: b: the reason"), "the reason");
  EXPECT_EQ(PlainReason(""), "gRPC gives no reason");
}

}  // namespace
}  // namespace attnd::ctl
