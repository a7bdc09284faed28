// A user's program: a call to a server that is not there, and the same code against the mock.
#include <gmock/gmock.h>

#include <iostream>
#include <memory>
#include <vector>

#include "attnd/client.h"
#include "attnd/mocks/mock_connection.h"

static_assert(__cplusplus < 202000L, "the public headers must compile as C++17");

namespace {

absl::Status Attend(attnd::Client client) {
  const std::vector<float> tensor(64);
  attnd::ComputeRequest request;
  request.model = "book";
  request.q = request.k = request.v = {tensor.data(), attnd::DType::kFp32, {1, 1, 16, 4}};
  return client.Compute(request).status();
}

bool Check(const absl::Status& status, absl::StatusCode expected) {
  if (status.code() == expected) return true;
  std::cerr << "expected " << expected << ", got " << status << "\n";
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  const auto client = attnd::Client::Create("unix:///nonexistent/attnd.sock");
  if (!client.ok() || !Check(Attend(*client), absl::StatusCode::kUnavailable)) return 1;

  auto mock = std::make_shared<attnd::MockConnection>();
  EXPECT_CALL(*mock, Compute).WillOnce(testing::Return(absl::ResourceExhaustedError("too large")));
  return Check(Attend(attnd::Client(mock)), absl::StatusCode::kResourceExhausted) ? 0 : 1;
}
