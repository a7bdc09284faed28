#include "client/attnctl/session_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

OpenSessionInfo Example() {
  OpenSessionInfo session;
  session.id = 7;
  session.peer = "ipv4:10.0.0.1:4242";
  session.model = "t5-tiny";
  session.version = 3;
  session.rows = 16;
  session.sources = 4;
  session.layers = 12;
  session.reserved_bytes = 107000704;
  session.used_bytes = 786432;
  session.steps = 42;
  session.age = absl::Seconds(3725);
  session.idle = absl::Milliseconds(1500);
  return session;
}

TEST(SessionText, ATableHasALineForEach) {
  OpenSessionInfo plain;
  plain.id = 12;
  plain.peer = "unix:";
  EXPECT_EQ(SessionTable({Example(), plain}),
            "ID  PEER                MODEL      ROWS  SOURCES  LAYERS  RESERVED   USED       STEPS  AGE   IDLE\n"
            "7   ipv4:10.0.0.1:4242  t5-tiny@3  16    4        12      102.0 MiB  768.0 KiB  42     1h2m  1.5s\n"
            "12  unix:               -          0     0        0       0 B        0 B        0      0.0s  0.0s\n");
}

TEST(SessionText, NoneIsSaid) { EXPECT_EQ(SessionTable({}), "no session is open\n"); }

TEST(SessionText, AllIsDescribed) {
  EXPECT_EQ(Described(Example()),
            "session 7\n"
            "  peer      ipv4:10.0.0.1:4242\n"
            "  model     t5-tiny version 3\n"
            "  rows      16\n"
            "  sources   4\n"
            "  layers    12\n"
            "  reserved  107000704 bytes (102.0 MiB)\n"
            "  used      786432 bytes (768.0 KiB)\n"
            "  steps     42\n"
            "  age       1h2m\n"
            "  idle      1.5s\n");
  EXPECT_THAT(Described({}), HasSubstr("\n  model     none\n"));
}

TEST(SessionText, JsonHasEveryFieldExactly) {
  EXPECT_EQ(ToJson(Example()).dump(),
            "{\"id\":7,\"peer\":\"ipv4:10.0.0.1:4242\",\"model\":\"t5-tiny\",\"version\":3,\"rows\":16,\"sources\":4,"
            "\"layers\":12,\"reserved_bytes\":107000704,\"used_bytes\":786432,\"steps\":42,\"age_seconds\":3725.0,"
            "\"idle_seconds\":1.5}");
}

TEST(SessionText, IdsAreNumbersEachOnce) {
  const absl::StatusOr<std::vector<std::uint64_t>> ids = SessionIds({"3", "18446744073709551615", "3"});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ElementsAre(3U, UINT64_MAX));
  for (const char* wrong : {"", "x", "-1", "1.5", "3,4", "18446744073709551616"}) {
    const absl::Status refused = SessionIds({"1", wrong}).status();
    EXPECT_TRUE(IsUsageError(refused)) << wrong;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("ID: expected the number of a session, got ")) << wrong;
  }
  EXPECT_EQ(NoSession({3, 5}).message(), "ID: expected the number of an open session, got 3, 5");
}

}  // namespace
}  // namespace attnd::ctl
