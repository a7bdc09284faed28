// The server: its models, threads, services and addresses.
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

// The health service's name for "the process is alive". It stays SERVING during the drain; "" and the names of attnd's
// services tell whether the server takes calls.
inline constexpr char kLivenessName[] = "liveness";

// Calls that a stop ended without an answer.
struct Stopped {
  std::int64_t cut_off = 0;    // cancelled before they were answered
  std::int64_t not_begun = 0;  // sent before their clients knew of the stop; gRPC ended them with CANCELLED
};

// Thread-safe, except for its destructor.
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): members stand in the order of their lifetimes
class Server {
 public:
  // Loads the embedded models and those in the model root, then listens. Errors: INVALID_ARGUMENT (a flag's value),
  // NOT_FOUND, PERMISSION_DENIED and FAILED_PRECONDITION (the kernel, the model root, or, with strict_models, a model
  // in it), UNAVAILABLE (cannot listen on an address), RESOURCE_EXHAUSTED (no memory or thread). GetServerInfo reports
  // `process_settings` before the server's own settings (settings.h).
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Options& options,
                                                       const std::vector<v1::Setting>& process_settings = {});

  // Stops at once and cancels calls in flight. Call Stop first to let them finish.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Reports NOT_SERVING, stops listening, tells every client to use another server (GOAWAY; UNAVAILABLE for new local
  // calls), and takes no new calls. Calls in flight and large calls on streams are finished; streams without pieces end
  // with UNAVAILABLE. Cancels what is left after options.drain, and closes connections without calls.
  Stopped Stop();

  // As given in Options.listen, with the ports that were bound.
  const std::vector<std::string>& addresses() const { return addresses_; }
  std::string kernel_name() const;
  std::int64_t calls_in_flight() const { return gate_.inside() + local_gate_.inside(); }
  int threads() const { return engine_.threads(); }
  // The most bytes that calls held at once since the last call of this function. It resets the peak, so only one place
  // may use it.
  std::int64_t TakePeakInflightBytes() { return ledger_.TakePeakBytes(); }
  // Counts of calls that the server ended.
  const Counters& counters() const { return counters_; }
  // Bytes of --max_inflight_bytes that calls hold now, including calls whose answers gRPC is still sending.
  std::int64_t inflight_bytes() const { return ledger_.used_bytes(); }
  // The constant part of GetServerInfo's answer.
  const v1::GetServerInfoResponse& info() const { return info_service_.info(); }

  // The memory that calls hold.
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
  // Counts of calls that wait to be received or to be computed.
  schedule::QueueUse QueueUseNow() const;
  bool AtWork() const;
  // Waits until gRPC has closed all connections and every local call is answered. Cancels what is left at the deadline,
  // or soon after the last call has ended. Returns how many calls it cancelled.
  std::int64_t AwaitClosed(std::chrono::steady_clock::time_point deadline);
  // All counts are 0 if there is no memory for counting.
  GrpcCalls CountCalls() const;

  const Options options_;  // with fitted limits
  const kernel::Kernel& kernel_;
  const std::shared_ptr<SharedMemory> shared_memory_;  // null if callers cannot share memory
  memory::Ledger ledger_;                              // of all memory that calls and sessions hold
  Counters counters_;
  model::Registry registry_;
  CallGate gate_;
  CallGate local_gate_;  // closed at the beginning of a stop, because local callers get no GOAWAY
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
