#include "client/attnctl/commands/info.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "attnd/shm/protocol.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "contract/unix_name.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

std::vector<std::pair<const char*, std::int64_t>> Named(const Limits& limits) {
  return {
#define ATTND_LIMIT(name, ...) {#name, limits.name},
#define ATTND_FIXED_LIMIT(name, value) {#name, limits.name},
#include "attnd/limits.inc"
  };
}

std::string Stamp(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone()); }

const char* NameOf(SettingState state) {
  switch (state) {
    case SettingState::kInForce:
      return "in force";
    case SettingState::kNotInForce:
      return "not in force";
    case SettingState::kRequested:
      return "requested";
    default:
      return "unknown";
  }
}

std::vector<std::pair<const char*, std::int64_t>> Named(const MemoryUse& use) {
  return {{"total_bytes", use.total_bytes},
          {"used_bytes", use.used_bytes},
          {"peak_bytes", use.peak_bytes},
          {"free_bytes", use.free_bytes},
          {"peers", use.peers},
          {"largest_peer_bytes", use.largest_peer_bytes},
          {"refused_by_total", use.refused_by_total},
          {"refused_by_share", use.refused_by_share},
          {"refused_as_never_fitting", use.refused_as_never_fitting},
          {"max_peer_bytes", use.max_peer_bytes}};
}

std::vector<std::pair<const char*, std::int64_t>> Named(const SessionUse& use) {
  return {{"open", use.open},
          {"evicted", use.evicted},
          {"max_sessions", use.max_sessions},
          {"max_peer_sessions", use.max_peer_sessions}};
}

std::vector<std::pair<const char*, std::int64_t>> Named(const StalledCalls& calls) {
  return {{"writes", calls.writes}, {"reads", calls.reads}};
}

std::vector<std::pair<const char*, std::int64_t>> Named(const QueueUse& queue) {
  return {{"waiting", queue.waiting}, {"refused", queue.refused}, {"expired", queue.expired}};
}

nlohmann::ordered_json AsJson(const std::vector<std::pair<const char*, std::int64_t>>& counts) {
  nlohmann::ordered_json json;
  for (const auto& [name, count] : counts) json[name] = count;
  return json;
}

void AppendText(const char* title, const std::vector<std::pair<const char*, std::int64_t>>& counts, std::string& text) {
  absl::StrAppend(&text, "  ", title, "\n");
  for (const auto& [name, count] : counts) absl::StrAppendFormat(&text, "    %-24s  %d\n", name, count);
}

std::string AsJson(const ServerInfo& info) {
  nlohmann::ordered_json json = {{"version", info.version},
                                 {"kernel", info.kernel},
                                 {"available_kernels", info.available_kernels},
                                 {"threads", info.threads},
                                 {"started_at", Stamp(info.started_at)},
                                 {"local_calls", info.local_calls},
                                 {"model_bytes", info.model_bytes}};
  json["limits"] = AsJson(Named(info.limits));
  if (info.memory.has_value()) json["memory"] = AsJson(Named(*info.memory));
  if (info.shared_memory.has_value()) json["shared_memory"] = AsJson(Named(*info.shared_memory));
  if (info.sessions.has_value()) json["sessions"] = AsJson(Named(*info.sessions));
  json["queue"] = AsJson(Named(info.queue));
  json["stalled_calls"] = AsJson(Named(info.stalled_calls));
  for (const Setting& setting : info.settings) {
    json["settings"][setting.name] = {{"state", NameOf(setting.state)}, {"detail", setting.detail}};
  }
  return json.dump(2) + "\n";
}

// The transport of calls.
std::string Calls(const ServerInfo& info, const std::string& server) {
  const std::optional<std::string> path = contract::UnixPath(server);
  if (!info.local_calls || !path.has_value()) return "gRPC";
  return absl::StrCat("local socket (", *path, shm::kSocketSuffix, ")");
}

std::string AsText(const ServerInfo& info, const Flags& flags) {
  std::string text = absl::StrFormat(
      "attnd %s at %s\n  kernel   %s (this CPU runs %s)\n  threads  %d\n  started  %s\n"
      "  calls    %s\n"
      "  models   %d bytes of tables\n"
      "  limits\n",
      info.version, ServerAddress(flags), info.kernel, absl::StrJoin(info.available_kernels, ", "), info.threads,
      Stamp(info.started_at), Calls(info, ServerAddress(flags)), info.model_bytes);
  for (const auto& [name, limit] : Named(info.limits)) absl::StrAppendFormat(&text, "    %-24s  %d\n", name, limit);
  if (info.memory.has_value()) AppendText("memory of calls", Named(*info.memory), text);
  if (info.shared_memory.has_value()) AppendText("memory that callers share", Named(*info.shared_memory), text);
  if (info.sessions.has_value()) AppendText("sessions", Named(*info.sessions), text);
  AppendText("calls that wait to be computed", Named(info.queue), text);
  AppendText("calls ended because they stood still", Named(info.stalled_calls), text);
  std::string settings;
  for (const Setting& setting : info.settings) {
    if (!flags.verbose.value() && setting.state != SettingState::kNotInForce) continue;
    absl::StrAppendFormat(&settings, "    %-21s  %s: %s\n", setting.name, NameOf(setting.state), setting.detail);
  }
  if (!settings.empty()) absl::StrAppend(&text, "  settings\n", settings);
  return text;
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<ServerInfo> info = client->GetServerInfo(Options(flags));
  if (!info.ok()) return info.status();
  return WriteOutput("", flags.WantsJson() ? AsJson(*info) : AsText(*info, flags));
}

}  // namespace

Command InfoCommand() {
  return {"info",
          "",
          "show the server's version, kernel, threads, limits and memory in use",
          "With --verbose also what its speed rests on, and whether that is in force; without it only what is not.",
          {"verbose", "json", "format"},
          Run,
          {},
          TextOrJson()};
}

}  // namespace attnd::ctl
