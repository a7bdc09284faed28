#include "server/probes/guarded.h"

#include <new>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;

TEST(GuardedTest, PassesOnWhatIsAnswered) {
  EXPECT_TRUE(Guarded([] { return grpc::Status::OK; }).ok());
  const grpc::Status status = Guarded([] { return grpc::Status(StatusCode::NOT_FOUND, "no such", "details"); });
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such");
  EXPECT_EQ(status.error_details(), "details");
}

TEST(GuardedTest, ALackOfMemoryIsAnError) {
  const grpc::Status status = Guarded([]() -> grpc::Status { throw std::bad_alloc(); });
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "out of memory");
}

}  // namespace
}  // namespace attnd::server
