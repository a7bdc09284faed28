#include "server/admission.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(AdmissionTest, CountsBytesUntilTheTicketsGo) {
  Admission admission(100);
  absl::StatusOr<Admission::Ticket> first = admission.Admit(60);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(admission.Admit(41).status().code(), absl::StatusCode::kResourceExhausted);
  absl::StatusOr<Admission::Ticket> second = admission.Admit(40);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(admission.inflight_bytes(), 100);
  Admission::Ticket moved = *std::move(first);
  EXPECT_EQ(admission.inflight_bytes(), 100);
  moved = Admission::Ticket();
  EXPECT_EQ(admission.inflight_bytes(), 40);
  EXPECT_TRUE(admission.Admit(60).ok());
}

// gRPC may hold the bytes of a result for longer than the server lives.
TEST(AdmissionTest, TicketsMayOutliveIt) {
  Admission::Ticket ticket;
  {
    Admission admission(100);
    ticket = *admission.Admit(60);
  }
  ticket = Admission::Ticket();
}

TEST(AdmissionTest, PeakIsTheMostHeldSinceItWasTaken) {
  Admission admission(100);
  {
    const absl::StatusOr<Admission::Ticket> first = admission.Admit(60);
    const absl::StatusOr<Admission::Ticket> second = admission.Admit(30);
    EXPECT_FALSE(admission.Admit(20).ok());
  }
  const absl::StatusOr<Admission::Ticket> held = admission.Admit(10);
  EXPECT_EQ(admission.TakePeakBytes(), 90);
  EXPECT_EQ(admission.TakePeakBytes(), 10) << "what is held at that time counts again";
}

TEST(AdmissionTest, RefusalNamesTheLimit) {
  Admission admission(100);
  const absl::Status refused = admission.Admit(101).status();
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("at most 100 bytes in flight (--max_inflight_bytes)"));
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("101"));
}

TEST(AdmissionTest, HugeSizesDoNotOverflow) {
  Admission admission(std::numeric_limits<std::int64_t>::max());
  absl::StatusOr<Admission::Ticket> most = admission.Admit(std::numeric_limits<std::int64_t>::max());
  ASSERT_TRUE(most.ok());
  EXPECT_FALSE(admission.Admit(std::numeric_limits<std::int64_t>::max()).ok());
  EXPECT_FALSE(admission.Admit(1).ok());
}

}  // namespace
}  // namespace attnd::server
