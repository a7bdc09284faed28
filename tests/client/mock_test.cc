// The mock as a user's test would use it.
#include <gtest/gtest.h>

#include <memory>

#include "attnd/client.h"
#include "attnd/mocks/mock_connection.h"

namespace attnd {
namespace {

using testing::_;
using testing::Field;
using testing::Return;

TEST(MockConnection, StandsInForAServer) {
  auto connection = std::make_shared<testing::StrictMock<MockConnection>>();
  Client client(connection);
  ComputeReply reply;
  reply.version = 5;
  EXPECT_CALL(*connection, Compute(Field(&ComputeRequest::model, "book"), _)).WillOnce(Return(reply));
  EXPECT_CALL(*connection, ComputeAsync).WillOnce([](ComputeRequest, CallOptions, ComputeCallback done) {
    done(absl::UnavailableError("stopping"));
  });
  EXPECT_CALL(*connection, GetModel("x", 0, true, _)).WillOnce(Return(absl::NotFoundError("x")));
  EXPECT_CALL(*connection, UnloadModel("x", _)).WillOnce(Return(absl::OkStatus()));

  ComputeRequest request;
  request.model = "book";
  EXPECT_EQ(client.Compute(request)->version, 5U);
  EXPECT_EQ(client.ComputeFuture(request).get().status(), absl::UnavailableError("stopping"));
  EXPECT_EQ(client.GetModel("x", 0, true).status(), absl::NotFoundError("x"));
  EXPECT_TRUE(client.UnloadModel("x").ok());
}

}  // namespace
}  // namespace attnd
