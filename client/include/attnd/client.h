// The C++ client of an attnd server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnd/attention.h"
#include "attnd/cancellation.h"
#include "attnd/connection.h"
#include "attnd/error_detail.h"
#include "attnd/models.h"
#include "attnd/options.h"
#include "attnd/session.h"
#include "attnd/shared_buffer.h"

namespace attnd {

// Calls an attnd server.
//
//   absl::StatusOr<attnd::Client> client = attnd::Client::Create("127.0.0.1:50051");
//   attnd::ComputeRequest request;
//   request.model = "t5-tiny";
//   request.q = {q.data(), attnd::DType::kFp32, {1, 8, 512, 64}};  // and k, v
//   absl::StatusOr<attnd::ComputeReply> reply = client->Compute(request);
//
// Performance: creating a client is expensive; create one and share it. It connects on the first call. Copies are cheap
// and share the connection. Tensors are sent from the caller's memory without a copy (exceptions: see TensorView), and
// a result is copied once, into its destination. A large call travels in pieces; with the round_robin policy the pieces
// go to all servers that the target's name resolves to. A server on the same host that shares memory
// (docs/shared-memory.md) gets tensors in shared memory, without any copy if they are in an AllocateBuffer buffer.
// Attention calls reach such a server over a local socket instead of gRPC (ClientOptions::local_calls), which takes a
// fraction of the time for a small call. The client limits messages only to what protobuf allows (2 GiB); the server
// has its own limits (see GetServerInfo).
//
// Thread safety: all methods may be called from several threads at once, on one Client or on copies of it.
//
// Linking: the library shares no symbol and no registered message with the rest of the process. Several plugins may
// each link it, in a program that also links it or compiles attnd's .proto files itself. Its threads run until the
// process ends, so dlclose does not unload a plugin that links it.
//
// Fork: a process may fork before it creates its first Client, and may fork and exec at any time. In a child forked
// after the first Client, Create and every method fail at once with FAILED_PRECONDITION; the parent's clients continue
// to work.
//
// Retries: calls that a server refuses or loses are sent again as described in RetryOptions, so that a server restart
// appears as a delay.
//
// Time: deadlines are times of the system clock, which gRPC converts when a call begins. If that clock is set back
// afterwards, calls with a deadline end later by the same amount.
//
// Errors: requests that are invalid by their shape alone are refused here, with the server's error message, before
// anything is sent (INVALID_ARGUMENT). All other calls return the server's code and message; attnd/v1/*.proto lists the
// codes of each. UNAVAILABLE: the server was not reached or is stopping, and retries did not help; the message gives
// the number of attempts. GetErrorDetail(status) returns the field at fault.
class Client {
 public:
  // `target` is a gRPC name: "host:port", "dns:///name:port", "unix:///run/attnd/attnd.sock". Does not wait for a
  // connection: an unreachable server becomes an error of the first call. Errors: INVALID_ARGUMENT for an empty target,
  // a malformed Unix socket name, an unknown policy, keepalive times or backoffs below 1 ms, or negative retry limits;
  // FAILED_PRECONDITION in a forked child (see Fork).
  static absl::StatusOr<Client> Create(const std::string& target, const ClientOptions& options = {});

  // Uses `connection`, e.g. a MockConnection; it must not be null.
  explicit Client(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  // Computes one batch of attention and waits for the result. Borrows the request's memory until it returns.
  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options = {});

  // As Compute, without waiting. The memory that `request` points to (tensors without owner, destinations) must stay
  // valid until the future is ready.
  std::future<absl::StatusOr<ComputeReply>> ComputeFuture(ComputeRequest request, CallOptions options = {});

  // As Compute, without waiting. `done` is called exactly once: on a thread of the library, or on this thread before
  // ComputeAsync returns if the call fails before anything is sent. The memory that `request` points to must stay valid
  // until then. `done` must not block or make blocking calls: other calls would wait for it.
  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done);

  // Opens a session: the server keeps keys and values (attnd/session.h). options.deadline applies to the opening only;
  // options.cancellation ends the session at any time. Errors: INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED (not
  // enough memory for the most that the session may keep, or too many sessions).
  absl::StatusOr<std::unique_ptr<Session>> OpenSession(const SessionRequest& request, const CallOptions& options = {});

  // The sessions open on the server, oldest first. For operators.
  absl::StatusOr<std::vector<OpenSessionInfo>> ListSessions(const CallOptions& options = {});

  // Ends a session: its further steps return ABORTED. Errors: NOT_FOUND.
  absl::Status EvictSession(std::uint64_t id, const CallOptions& options = {});

  // Memory for tensors and results that a server on the same host reads and writes in place; see SharedBuffer. Errors:
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes);

  // The results of ListModels and ListFailedModels, with one pass over the server's pages.
  absl::StatusOr<ModelList> ListAllModels(const CallOptions& options = {});

  // All loaded models, sorted by name, without values.
  absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options = {});

  // What the server found in its model root at its start and could not load, except what has been loaded since; sorted
  // by path, at most 1000. Empty if the server is older than this method.
  absl::StatusOr<std::vector<FailedModel>> ListFailedModels(const CallOptions& options = {});

  // One model. version 0: the current one. Errors: NOT_FOUND.
  absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version = 0, bool include_values = false,
                                 const CallOptions& options = {});

  // Loads a checkpoint folder, GGUF or JSON file below the server's model root. If `name` is empty, the model is named
  // after the folder or the file without its extension; in the Hub's cache, after the repository ("org/name"). Errors:
  // NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED (path leaves the root), FAILED_PRECONDITION (no model root),
  // INVALID_ARGUMENT (no valid model; the message says where), RESOURCE_EXHAUSTED.
  absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name = "",
                                  const CallOptions& options = {});

  // Reads a model again from where it was loaded. If that fails, the old version stays. Errors: as LoadModel.
  absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options = {});

  // Removes a model; calls under way finish with it. Errors: NOT_FOUND.
  absl::Status UnloadModel(const std::string& name, const CallOptions& options = {});

  // Creates a model from `table`, or adds it to an uploaded model. If table.name is empty it is "decoder", or "encoder"
  // for a bidirectional table. Errors: INVALID_ARGUMENT, ALREADY_EXISTS (the table exists and `replace` is false, or
  // the model was not uploaded), RESOURCE_EXHAUSTED.
  absl::StatusOr<Model> UploadTable(const std::string& model, const Table& table, bool replace = false,
                                    const CallOptions& options = {});

  // The bias of a window of queries and keys. Errors: INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED (too large).
  absl::StatusOr<BiasReply> GetBias(const BiasRequest& request, const CallOptions& options = {});

  // The server's version, kernel, threads, limits and memory in use.
  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options = {});

 private:
  std::shared_ptr<Connection> connection_;
};

}  // namespace attnd
