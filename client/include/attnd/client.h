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
// Performance: making a client is expensive and connects lazily; make one and share it. Copies are cheap and share the
// connection. Tensors are sent from the caller's memory without a copy (but see TensorView) and a result is copied
// once, into its destination. A large call travels in pieces, over all servers that the target's name stands for if the
// policy is round_robin. A server on the same host that shares memory (docs/shared-memory.md) is handed tensors in
// memory: from AllocateBuffer without any copy. Attention calls reach such a server without gRPC
// (ClientOptions::local_calls), which takes a small call a fraction of the time. There is no limit on the size of
// messages here; the server has its own (see Info).
//
// Thread safety: all methods may be called from several threads at once, on one Client or on copies of it.
//
// Linking: the library shares no symbol and no registered message with the rest of the process. Several plugins may
// each link it, beside a program that links it too or compiles attnd's .proto files itself. Its threads run until the
// process ends, so dlclose leaves a plugin that links it in memory.
//
// Fork: a process may fork before its first Client is made, or fork and exec at any time. In a child that was forked
// later every method, and Create, fails at once with FAILED_PRECONDITION; the parent's clients go on.
//
// Repeats: what a server refuses or loses is sent again as RetryOptions says, so that a restart shows as a delay.
//
// Time: deadlines are times of the system's clock, which gRPC translates when a call begins. A clock that is set back
// afterwards makes calls with a deadline end later by as much.
//
// Errors: what the server can refuse by shape alone is refused here with the same words before anything is sent
// (INVALID_ARGUMENT). Otherwise a call has the server's code and message; attnd/v1/*.proto lists the codes of each.
// UNAVAILABLE: the server was not reached or is stopping, and the repeats did not help; the message says how many.
// GetErrorDetail(status) tells the field at fault.
class Client {
 public:
  // `target` is a gRPC name: "host:port", "dns:///name:port", "unix:///run/attnd/attnd.sock". Does not wait for a
  // connection: a server that is not there shows in the first call. Errors: INVALID_ARGUMENT for an empty target, an
  // unknown policy, or timeouts that are not positive; FAILED_PRECONDITION in a forked child (see Fork).
  static absl::StatusOr<Client> Create(const std::string& target, const ClientOptions& options = {});

  // Over any connection, e.g. a MockConnection. `connection` is not null.
  explicit Client(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  // Computes one batch of attention and waits for it. The request's memory is borrowed until this returns.
  absl::StatusOr<ComputeReply> Compute(const ComputeRequest& request, const CallOptions& options = {});

  // The same without waiting. The memory that `request` names (tensors without owner, destinations) must stay valid
  // until the future is ready.
  std::future<absl::StatusOr<ComputeReply>> ComputeFuture(ComputeRequest request, CallOptions options = {});

  // The same; `done` is called exactly once, on a thread of the library or, if the request is refused at once, on this
  // one before this returns. The memory that `request` names must stay valid until then. `done` must not block nor
  // make blocking calls: it holds up other calls.
  void ComputeAsync(ComputeRequest request, CallOptions options, ComputeCallback done);

  // Opens a session: the server keeps keys and values (attnd/session.h). The deadline is that of the opening. Errors:
  // INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED (no memory for all that it may keep, or too many sessions).
  absl::StatusOr<std::unique_ptr<Session>> OpenSession(const SessionRequest& request, const CallOptions& options = {});

  // The sessions that are open on the server, for operators; those that were opened first come first.
  absl::StatusOr<std::vector<OpenSessionInfo>> ListSessions(const CallOptions& options = {});

  // Ends a session, whose steps are ABORTED then. Errors: NOT_FOUND.
  absl::Status EvictSession(std::uint64_t id, const CallOptions& options = {});

  // Memory for tensors and results that a server on the same host reads and writes in place; see SharedBuffer. Errors:
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<SharedBuffer> AllocateBuffer(std::size_t bytes);

  // What ListModels and ListFailedModels give, in one walk through the server's pages.
  absl::StatusOr<ModelList> ListAllModels(const CallOptions& options = {});

  // All loaded models, in order of name, without values.
  absl::StatusOr<std::vector<Model>> ListModels(const CallOptions& options = {});

  // What the server's start found in its model root and could not load, by path, without what has been loaded since;
  // the first 1000. Empty from a server that is older than this method.
  absl::StatusOr<std::vector<FailedModel>> ListFailedModels(const CallOptions& options = {});

  // One model. version 0: the current one. Errors: NOT_FOUND.
  absl::StatusOr<Model> GetModel(const std::string& name, std::uint64_t version = 0, bool include_values = false,
                                 const CallOptions& options = {});

  // Loads a checkpoint folder, GGUF or JSON file below the server's model root. `name` empty: the folder's name or the
  // file's stem, and of the Hub's cache the repository's, "org/name". Errors: NOT_FOUND, ALREADY_EXISTS,
  // PERMISSION_DENIED (path leaves the root), FAILED_PRECONDITION (no model root), INVALID_ARGUMENT (no valid model;
  // the message says where), RESOURCE_EXHAUSTED.
  absl::StatusOr<Model> LoadModel(const std::string& path, const std::string& name = "",
                                  const CallOptions& options = {});

  // Reads a model again from where it was loaded; if that fails the old version stays. Errors: as LoadModel.
  absl::StatusOr<Model> ReloadModel(const std::string& name, const CallOptions& options = {});

  // Removes a model; calls in flight finish with it. Errors: NOT_FOUND.
  absl::Status UnloadModel(const std::string& name, const CallOptions& options = {});

  // Makes a model of `table`, or adds it to an uploaded one. table.name empty: "decoder", or "encoder" if
  // bidirectional. Errors: INVALID_ARGUMENT, ALREADY_EXISTS (and not `replace`, or a model not made by uploads),
  // RESOURCE_EXHAUSTED.
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
