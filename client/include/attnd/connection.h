// The interface between a Client and its transport, for tests and wrappers (logging, your own retries).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/models.h"
#include "attnd/options.h"
#include "attnd/session.h"
#include "attnd/shared_buffer.h"

namespace attnd {

using ComputeCallback = std::function<void(absl::StatusOr<ComputeReply>)>;

// One method for each remote call; see Client for their documentation. Implementations are thread-safe. To test code
// that uses a Client, use MockConnection from attnd/mocks/mock_connection.h.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options) = 0;
  virtual void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done) = 0;

  virtual absl::StatusOr<std::unique_ptr<Session>> OpenSession(const SessionRequest& request,
                                                               const CallOptions& options) = 0;
  virtual absl::StatusOr<std::vector<OpenSessionInfo>> ListSessions(const CallOptions& options) = 0;
  virtual absl::Status EvictSession(std::uint64_t id, const CallOptions& options) = 0;

  virtual absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes) = 0;

  virtual absl::StatusOr<ModelList> ListAllModels(const CallOptions& options) = 0;
  virtual absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options) = 0;
  virtual absl::StatusOr<std::vector<FailedModel>> ListFailedModels(const CallOptions& options) = 0;
  virtual absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version, bool include_values,
                                         const CallOptions& options) = 0;
  virtual absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name,
                                          const CallOptions& options) = 0;
  virtual absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options) = 0;
  virtual absl::Status UnloadModel(const std::string& name, const CallOptions& options) = 0;
  virtual absl::StatusOr<Model> UploadTable(const std::string& model, const Table& table, bool replace,
                                            const CallOptions& options) = 0;
  virtual absl::StatusOr<BiasReply> GetBias(const BiasRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options) = 0;
};

// A connection to a server. Connects on the first call; errors: as Client::Create.
absl::StatusOr<std::shared_ptr<Connection>> Connect(const std::string& target, const ClientOptions& options = {});

}  // namespace attnd
