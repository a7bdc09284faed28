// The server: its models, its threads, its services, and the addresses it answers on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/server.h"
#include "memory/ledger.h"
#include "model/registry.h"
#include "server/attention/engine.h"
#include "server/attention/local_service.h"
#include "server/attention/service.h"
#include "server/config/options.h"
#include "server/models/service.h"
#include "server/probes/probes.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/counters.h"
#include "server/rpc/stall_watch.h"
#include "server/serving/closing.h"
#include "server/serving/grpc_calls.h"
#include "server/serving/info_service.h"
#include "server/serving/receive_quota.h"
#include "server/session/local_session.h"
#include "server/session/service.h"
#include "server/shm/listener.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

class Acceptor;

// The health service's name for "the process is alive", which stays SERVING while a stopping server drains; "" and the
// names of attnd's services tell whether it takes calls.
inline constexpr char kLivenessName[] = "liveness";

// How a server has stopped.
struct Stopped {
  std::int64_t cut_off = 0;    // calls that were cancelled before they were answered
  std::int64_t not_begun = 0;  // calls that came before their clients knew of the stop: gRPC ended them with CANCELLED
};

// Thread-safe but for its destruction.
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): members stand in the order of their lifetimes
class Server {
 public:
  // Loads the embedded models and what the model root holds, then listens. Errors: INVALID_ARGUMENT (a flag's value),
  // NOT_FOUND, PERMISSION_DENIED and FAILED_PRECONDITION (the kernel, the model root, with strict_models what is in
  // it), UNAVAILABLE (an address that cannot be listened on), RESOURCE_EXHAUSTED (no memory or thread).
  // `process_settings` are what GetServerInfo says of the process beside the server's own settings (settings.h).
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Options& options,
                                                       const std::vector<v1::Setting>& process_settings = {});

  // Stops at once: calls in flight are cancelled. Call Stop first to let them finish.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Reports NOT_SERVING, listens no more, tells every client to turn elsewhere (GOAWAY, and UNAVAILABLE for local
  // calls), and takes no new call. Calls in flight, and jobs in streams, are finished; streams without pieces are ended
  // with UNAVAILABLE. What is left after options.drain is cancelled. Connections that are left without calls are
  // closed.
  Stopped Stop();

  // As given to Options.listen, with the port that was bound where it asked for any.
  const std::vector<std::string>& addresses() const { return addresses_; }
  std::string kernel_name() const;
  std::int64_t calls_in_flight() const { return gate_.inside() + local_gate_.inside(); }
  int threads() const { return engine_.threads(); }
  // The most bytes that calls held at once since this was last called. For one caller.
  std::int64_t TakePeakInflightBytes() { return ledger_.TakePeakBytes(); }
  // What the server has ended by itself.
  const Counters& counters() const { return counters_; }
  // What calls hold of --max_inflight_bytes now; those whose answers gRPC is still sending are among them.
  std::int64_t inflight_bytes() const { return ledger_.used_bytes(); }
  // As GetServerInfo lists them.
  const v1::GetServerInfoResponse& info() const { return info_service_.info(); }

  // What all calls hold together.
  const memory::Ledger& ledger() const { return ledger_; }
  model::Registry& registry() { return registry_; }
  grpc::Server& grpc_server() { return *grpc_server_; }
  // Null if callers cannot share memory.
  const SharedMemory* shared_memory() const { return shared_memory_.get(); }

 private:
  Server(const Options& options, const kernel::Kernel& kernel, const std::vector<v1::Setting>& process_settings);
  absl::Status LoadModels();
  absl::Status Listen();
  absl::Status ListenBeside();
  // Of calls that wait to be received, or to be computed.
  schedule::QueueUse QueueUseNow() const;
  bool AtWork() const;
  // Until gRPC has closed all connections and every local call is answered; closes them itself at the deadline, or soon
  // after the last call. Returns how many calls that cut off.
  std::int64_t AwaitClosed(std::chrono::steady_clock::time_point deadline);
  // None where there is no memory to count them.
  GrpcCalls CountCalls() const;

  const Options options_;  // with limits that fit
  const kernel::Kernel& kernel_;
  const std::shared_ptr<SharedMemory> shared_memory_;  // null if callers cannot share memory
  memory::Ledger ledger_;                              // of everything that calls hold
  Counters counters_;
  model::Registry registry_;
  CallGate gate_;
  CallGate local_gate_;  // closed at the stop's beginning, as local callers are told of it by no other means
  StallWatch stalls_;
  AttentionEngine engine_;
  AttentionService attention_service_;
  SessionService session_service_;
  LocalSessionService local_sessions_;
  LocalService local_service_;
  ModelService model_service_;
  InfoService info_service_;
  Probes probes_;
  std::vector<std::string> addresses_;
  ReceiveQuota receive_quota_;
  std::unique_ptr<grpc::Server> grpc_server_;
  Closing closing_;                 // of grpc_server_
  std::int64_t channelz_name_ = 0;  // of grpc_server_
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<std::unique_ptr<SharedMemoryListener>> shared_memory_listeners_;
};

}  // namespace attnd::server
