#include "server/serving/server_info.h"

#include <string>

#include "absl/time/clock.h"
#include "kernel/registry.h"
#include "server/config/version.h"
#include "server/rpc/proto_time.h"
#include "server/serving/grpc_settings.h"
#include "server/serving/memory_setting.h"
#include "server/serving/settings.h"

namespace attnd::server {
namespace {

v1::Limits ToProto(const Limits& limits) {
  v1::Limits proto;
#define ATTND_LIMIT(name, ...) proto.set_##name(limits.name);
#define ATTND_FIXED_LIMIT(name, value) proto.set_##name(limits.name);
#include "attnd/limits.inc"
  return proto;
}

v1::MemoryUse ToProto(const memory::Ledger::Usage& usage) {
  v1::MemoryUse proto;
  proto.set_total_bytes(usage.total);
  proto.set_used_bytes(usage.used);
  proto.set_peak_bytes(usage.peak);
  proto.set_free_bytes(usage.total - usage.used);
  proto.set_peers(usage.peers);
  proto.set_largest_peer_bytes(usage.largest_peer);
  proto.set_refused_by_total(usage.refused_by_total);
  proto.set_refused_by_share(usage.refused_by_share);
  proto.set_refused_as_never_fitting(usage.refused_as_never_fitting);
  proto.set_max_peer_bytes(usage.most_for_one);
  return proto;
}

}  // namespace

schedule::QueueUse WithIntake(schedule::QueueUse queue, const schedule::Intake::Use& intake) {
  queue.waiting += intake.waiting;
  queue.refused += intake.refused + intake.late;
  return queue;
}

void AddUse(const memory::Ledger& ledger, const SharedMemory* shared, const Counters& counters,
            const model::Registry& models, const schedule::QueueUse& queue, const SessionTable::Use& sessions,
            v1::GetServerInfoResponse& info) {
  info.mutable_sessions()->set_open(sessions.open);
  info.mutable_sessions()->set_evicted(sessions.evicted);
  info.mutable_sessions()->set_max_sessions(sessions.most);
  info.mutable_sessions()->set_max_peer_sessions(sessions.most_of_peer);
  *info.mutable_memory() = ToProto(ledger.GetUsage());
  if (shared != nullptr) *info.mutable_shared_memory() = ToProto(shared->GetUsage());
  info.set_model_bytes(models.table_bytes());
  info.mutable_queue()->set_waiting(queue.waiting);
  info.mutable_queue()->set_refused(queue.refused);
  info.mutable_queue()->set_expired(queue.expired);
  info.mutable_stalled_calls()->set_writes(counters.stalled_writes.load(std::memory_order_relaxed));
  info.mutable_stalled_calls()->set_reads(counters.stalled_reads.load(std::memory_order_relaxed));
}

v1::GetServerInfoResponse InfoOf(const Options& options, const kernel::Kernel& kernel, int threads,
                                 const std::vector<v1::Setting>& process_settings) {
  v1::GetServerInfoResponse info;
  info.set_version(kVersion);
  info.set_kernel(std::string(kernel::NameOf(kernel)));
  for (const kernel::Kernel* available : kernel::AvailableKernels()) {
    info.add_available_kernels(std::string(kernel::NameOf(*available)));
  }
  info.set_threads(threads);
  *info.mutable_started_at() = ToProto(absl::Now());
  *info.mutable_limits() = ToProto(options.limits);
  if (!SharesMemory(options)) info.mutable_limits()->set_max_shared_bytes(0);
  *info.mutable_settings() = {process_settings.begin(), process_settings.end()};
  *info.add_settings() = KernelSetting(kernel, options.kernel);
  *info.add_settings() = ReadBytesSetting();
  *info.add_settings() = MemorySetting(options, AllowedToThisProcess());
  info.set_local_calls(TakesLocalCalls(options));
  return info;
}

}  // namespace attnd::server
