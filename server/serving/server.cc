#include "server/serving/server.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpc/grpc.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "kernel/registry.h"
#include "memory/no_memory.h"
#include "server/config/byte_size.h"
#include "server/net/acceptor.h"
#include "server/net/address.h"
#include "server/net/listen.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "server/serving/descriptors.h"
#include "server/serving/fitted_limits.h"
#include "server/serving/grpc_calls.h"
#include "server/serving/grpc_settings.h"
#include "server/serving/memory_setting.h"
#include "server/serving/part_options.h"
#include "server/serving/server_info.h"
#include "server/serving/threads.h"
#include "spdlog/spdlog.h"

namespace attnd::server {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Counts as infinite, and is within the steady clock's range.
constexpr absl::Duration kYears = absl::Hours(24 * 365 * 100);

// How often a stopping server checks what is left.
constexpr std::chrono::milliseconds kLook(10);
// If nothing has been under way on a stream for this long, the server assumes that no piece is on its way, unless the
// client has announced one.
constexpr std::chrono::milliseconds kQuietStream(700);
// How long after the end of the last call the server closes connections that clients have not closed. A client without
// its own thread (gRPC's synchronous client) notices the GOAWAY only with its next call, or after five seconds.
constexpr std::chrono::milliseconds kLastWord(400);

// How long watches and reflection streams may take to end before they are cancelled.
constexpr absl::Duration kProbesEnd = absl::Seconds(1);

// How long a client may leave sent data unacknowledged before its connection is dropped.
constexpr absl::Duration kTcpUserTimeout = absl::Seconds(20);

absl::Status NotAllLoaded(std::int64_t loaded, const std::vector<model::FailedModel>& failed) {
  std::string message = absl::StrCat("--strict_models: ", failed.size(), " of ",
                                     static_cast<std::size_t>(loaded) + failed.size(), " models could not be loaded");
  const char* separator = ": ";
  for (const model::FailedModel& model : failed) {
    absl::StrAppend(&message, separator, "\"", absl::Utf8SafeCEscape(model.path), "\": ", model.reason);
    separator = "; ";
  }
  return absl::FailedPreconditionError(message);
}

void LogFitted(const Limits& asked_for, const Limits& fitted) {
  std::string line;
  for (const LimitRow& row : LimitRows()) {
    if (asked_for.*row.value == fitted.*row.value) continue;
    const std::int64_t value = fitted.*row.value;
    absl::StrAppend(&line, line.empty() ? "" : ", ", "--", row.name, "=",
                    row.bytes ? AbslUnparseFlag(ByteSize{value}) : absl::StrCat(value));
  }
  if (!line.empty()) spdlog::info("by what this process may have: {}", line);
}

}  // namespace

Server::Server(const Options& options, const kernel::Kernel& kernel, const std::vector<v1::Setting>& process_settings)
    : options_(options),
      kernel_(kernel),
      shared_memory_(SharesMemory(options) ? std::make_shared<SharedMemory>(SharedMemoryLimitsOf(options)) : nullptr),
      ledger_(LedgerOptionsOf(options)),
      registry_(RegistryOptionsOf(options)),
      stalls_(StallLimitOf(options), counters_, [](const std::string& line) { spdlog::warn("{}", line); }),
      engine_(options.limits, registry_, kernel, ComputingThreads(options), shared_memory_.get(), &ledger_,
              options.max_queue_time),
      attention_service_(engine_, gate_, stalls_, AttentionServiceOptionsOf(options)),
      session_service_(engine_, registry_, gate_, stalls_, SessionOptionsOf(options), TrustedProxies(options)),
      local_sessions_(session_service_.host(), local_gate_),
      local_service_(engine_, local_gate_, options.local_calls, &local_sessions_),
      model_service_(options.limits, registry_, ledger_, stalls_, TrustedProxies(options)),
      info_service_(InfoOf(options, kernel, engine_.threads(), process_settings),
                    [this](v1::GetServerInfoResponse& info) {
                      AddUse(ledger_, shared_memory_.get(), counters_, registry_, QueueUseNow(), session_service_.use(),
                             info);
                    }),
      probes_({v1::AttentionService::service_full_name(), v1::SessionService::service_full_name(),
               v1::ModelService::service_full_name(), v1::ServerService::service_full_name()}),
      receive_quota_(options.limits.max_inflight_bytes, [this] {
        return ReceiveQuota::Held{ledger_.used_bytes(), AttentionEngine::received_bytes()};
      }) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options,
                                                      const std::vector<v1::Setting>& process_settings) {
  std::unique_ptr<Server> server;
  ATTND_RETURN_IF_ERROR(memory::CatchNoMemory([&] {
    ATTND_RETURN_IF_ERROR(CheckOptions(options));
    ATTND_ASSIGN_OR_RETURN(const kernel::Kernel* kernel, kernel::ChooseKernel(options.kernel));
    Options fitted = options;
    fitted.limits =
        FittedLimits(options, ComputingThreads(options), AllowedToThisProcess(), ConnectionsForDescriptors());
    LogFitted(options.limits, fitted.limits);
    server.reset(new Server(fitted, *kernel, process_settings));
    ATTND_RETURN_IF_ERROR(server->LoadModels());
    return server->Listen();
  }));
  return server;
}

Server::~Server() {
  shared_memory_listeners_.clear();
  if (acceptor_ != nullptr) acceptor_->Stop();
  if (grpc_server_ != nullptr) grpc_server_->Shutdown(std::chrono::system_clock::now());
}

absl::Status Server::LoadModels() {
  ATTND_RETURN_IF_ERROR(registry_.AddEmbedded());
  if (options_.model_root.empty()) return absl::OkStatus();
  const absl::StatusOr<std::int64_t> loaded = registry_.LoadRoot();
  if (!loaded.ok()) {
    return absl::Status(loaded.status().code(), absl::StrCat("--model_root: ", loaded.status().message()));
  }
  spdlog::info("loaded {} models from {}", *loaded, options_.model_root);
  const std::vector<model::FailedModel> failed = registry_.Failed();
  if (options_.strict_models && !failed.empty()) return NotAllLoaded(*loaded, failed);
  if (*loaded > 0) return absl::OkStatus();
  const std::string none = absl::StrCat("--model_root: no model was loaded from ", options_.model_root);
  if (options_.strict_models) return absl::FailedPreconditionError(absl::StrCat(none, " (--strict_models)"));
  spdlog::warn("{}: the server has the embedded models alone", none);
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  ListenOptions listen;
  listen.unix_mode = options_.unix_socket_mode;
  listen.tcp_user_timeout = kTcpUserTimeout;
  ATTND_ASSIGN_OR_RETURN(Listening listening, ListenAt(options_.listen, listen));
  addresses_ = listening.addresses;
  ATTND_ASSIGN_OR_RETURN(acceptor_, Acceptor::Create(std::move(listening.sockets), ConnectionLimitsOf(options_)));
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  Configure(options_, builder);
  builder.SetResourceQuota(receive_quota_.quota());
  std::shared_ptr<grpc::experimental::ExternalConnectionAcceptor> to_grpc =
      builder.experimental().AddExternalConnectionAcceptor(
          grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, grpc::InsecureServerCredentials());
  builder.RegisterService(&attention_service_);
  builder.RegisterService(&session_service_);
  builder.RegisterService(&model_service_);
  builder.RegisterService(&info_service_);
  probes_.Register(builder);
  grpc_server_ = builder.BuildAndStart();
  if (grpc_server_ == nullptr) return absl::InternalError("gRPC cannot start its server");
  ATTND_RETURN_IF_ERROR(closing_.Start(*grpc_server_));
  channelz_name_ = NewestGrpcServer();
  ATTND_RETURN_IF_ERROR(ListenBeside());
  probes_.health().Set(kLivenessName, true);
  probes_.SetServing(true);
  return acceptor_->Start([to_grpc](shm::UniqueFd connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.listener_fd = -1;
    parameters.fd = connection.release();
    to_grpc->HandleNewConnection(&parameters);
  });
}

absl::Status Server::ListenBeside() {
  if (!options_.shared_memory && !options_.local_calls) return absl::OkStatus();
  ListenerOptions listener;
  listener.mode = options_.unix_socket_mode;
  for (const std::string& address : options_.listen) {
    const std::optional<std::string> path = UnixPathOf(address);
    if (!path.has_value()) continue;
    auto beside =
        SharedMemoryListener::Create(absl::StrCat(*path, shm::kSocketSuffix), listener, shared_memory_, local_service_);
    if (!beside.ok()) {
      return absl::Status(beside.status().code(),
                          absl::StrCat(beside.status().message(), " (the socket for shared memory and local calls;",
                                       " --noshared_memory --nolocal_calls do without)"));
    }
    shared_memory_listeners_.push_back(*std::move(beside));
  }
  return absl::OkStatus();
}

// If there is no memory for a step, that step is skipped, and the stop continues.
Stopped Server::Stop() {
  const SteadyClock::time_point deadline =
      SteadyClock::now() + absl::ToChronoNanoseconds(std::min(options_.drain, kYears));
  static_cast<void>(memory::CatchNoMemoryIn([this] { probes_.SetServing(false); }));
  local_gate_.Close();
  static_cast<void>(memory::CatchNoMemoryIn([this] { session_service_.GoAway(std::min(options_.drain, kYears)); }));
  for (const auto& listener : shared_memory_listeners_) listener->StopAccepting();
  acceptor_->Stop();  // gRPC would neither take nor close connections that come after its shutdown
  // Every connection gets a GOAWAY at once. If a client sent a call before it read the GOAWAY, that call never reaches
  // a service: gRPC ends it with CANCELLED.
  const GrpcCalls before = CountCalls();
  closing_.Begin();
  static_cast<void>(memory::CatchNoMemoryIn([this] { probes_.End(std::min(kProbesEnd, options_.drain)); }));
  Stopped stopped;
  stopped.cut_off = AwaitClosed(deadline);
  gate_.Close();
  closing_.Await();
  shared_memory_listeners_.clear();
  stopped.not_begun = NotBegun(before, CountCalls());
  return stopped;
}

schedule::QueueUse Server::QueueUseNow() const { return WithIntake(engine_.queue(), attention_service_.intake_use()); }

GrpcCalls Server::CountCalls() const {
  GrpcCalls calls;
  static_cast<void>(memory::CatchNoMemoryIn([&] { calls = CountGrpcCalls(channelz_name_); }));
  return calls;
}

// By the services' own counts: gRPC never counts a call as ended if it reached no service.
bool Server::AtWork() const { return calls_in_flight() > 0 || ledger_.used_bytes() > 0 || model_service_.busy(); }

std::int64_t Server::AwaitClosed(SteadyClock::time_point deadline) {
  const SteadyClock::time_point begun = SteadyClock::now();
  SteadyClock::time_point last_busy = begun;
  while (!closing_.done() || local_gate_.inside() > 0) {
    const SteadyClock::time_point now = SteadyClock::now();
    // End streams that wait for their clients, because they would keep the connections open.
    std::int64_t streams = 0;
    static_cast<void>(memory::CatchNoMemoryIn([&] {
      streams = attention_service_.EndStreamsQuietFor(kQuietStream);
      // Also end calls whose messages do not arrive.
      if (now - begun >= kQuietStream) stalls_.EndReads(now - kQuietStream);
    }));
    const bool at_work = AtWork() || streams > 0;
    if (at_work) last_busy = now;
    if (now >= deadline || now - last_busy >= kLastWord) {
      const std::int64_t left = at_work ? std::max<std::int64_t>(calls_in_flight(), 1) : 0;
      static_cast<void>(memory::CatchNoMemoryIn([this] { session_service_.EndAll(); }));
      const SteadyClock::time_point told = SteadyClock::now() + kLastWord;
      while (session_service_.use().open > 0 && SteadyClock::now() < told) std::this_thread::sleep_for(kLook);
      grpc_server_cancel_all_calls(grpc_server_->c_server());
      return left;
    }
    std::this_thread::sleep_for(kLook);
  }
  return 0;
}

std::string Server::kernel_name() const { return std::string(kernel::NameOf(kernel_)); }

}  // namespace attnd::server
