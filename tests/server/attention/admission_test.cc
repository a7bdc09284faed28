#include "server/attention/admission.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

TEST(AdmissionTest, CountsBytesUntilTheLeasesAreDestroyed) {
  Admission admission(100);
  absl::StatusOr<memory::Budget::Lease> first = admission.Admit(60);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(admission.Admit(41).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(admission.inflight_bytes(), 60);
  first = absl::CancelledError();
  EXPECT_EQ(admission.inflight_bytes(), 0);
  EXPECT_EQ(admission.TakePeakBytes(), 60);
}

TEST(AdmissionTest, RefusalNamesTheLimitAndWhatOthersHold) {
  Admission admission(100);
  const absl::StatusOr<memory::Budget::Lease> held = admission.Admit(30);
  EXPECT_EQ(admission.Admit(71).status().message(),
            "request: expected at most 100 bytes in flight (--max_inflight_bytes), got 71 bytes beside the 30 of other "
            "calls");
}

}  // namespace
}  // namespace attnd::server
