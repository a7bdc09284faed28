// A mock connection for tests of code that uses attnd::Client.
#pragma once

#include <gmock/gmock.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attnd/connection.h"

namespace attnd {

//   auto connection = std::make_shared<attnd::MockConnection>();
//   EXPECT_CALL(*connection, Compute).WillOnce(testing::Return(absl::UnavailableError("stopping")));
//   CodeUnderTest(attnd::Client(connection));
//
// Thread safety: several threads may call it at once, but all expectations must be set before the first call, as gMock
// requires.
class MockConnection : public Connection {
 public:
  MOCK_METHOD(absl::StatusOr<ComputeReply>, Compute, (const ComputeRequest& request, const CallOptions& options),
              (override));
  MOCK_METHOD(void, ComputeAsync, (ComputeRequest request, CallOptions options, ComputeCallback done), (override));
  MOCK_METHOD(absl::StatusOr<std::unique_ptr<Session>>, OpenSession,
              (const SessionRequest& request, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<OpenSessionInfo>>, ListSessions, (const CallOptions& options), (override));
  MOCK_METHOD(absl::Status, EvictSession, (std::uint64_t id, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<SharedBuffer>, AllocateBuffer, (std::size_t bytes), (override));
  MOCK_METHOD(absl::StatusOr<ModelList>, ListAllModels, (const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Model>>, ListModels, (const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<FailedModel>>, ListFailedModels, (const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<Model>, GetModel,
              (const std::string& name, std::uint64_t version, bool include_values, const CallOptions& options),
              (override));
  MOCK_METHOD(absl::StatusOr<Model>, LoadModel,
              (const std::string& path, const std::string& name, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<Model>, ReloadModel, (const std::string& name, const CallOptions& options), (override));
  MOCK_METHOD(absl::Status, UnloadModel, (const std::string& name, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<Model>, UploadTable,
              (const std::string& model, const Table& table, bool replace, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<BiasReply>, GetBias, (const BiasRequest& request, const CallOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<ServerInfo>, GetServerInfo, (const CallOptions& options), (override));
};

}  // namespace attnd
