#include "client/attnctl/session_text.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/attnctl/columns.h"
#include "client/attnctl/quantities.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

std::string ModelOf(const OpenSessionInfo& session) {
  return session.model.empty() ? "-" : absl::StrCat(session.model, "@", session.version);
}

}  // namespace

nlohmann::ordered_json ToJson(const OpenSessionInfo& session) {
  return {{"id", session.id},
          {"peer", session.peer},
          {"model", session.model},
          {"version", session.version},
          {"rows", session.rows},
          {"sources", session.sources},
          {"layers", session.layers},
          {"reserved_bytes", session.reserved_bytes},
          {"used_bytes", session.used_bytes},
          {"steps", session.steps},
          {"age_seconds", absl::ToDoubleSeconds(session.age)},
          {"idle_seconds", absl::ToDoubleSeconds(session.idle)}};
}

std::string SessionTable(const std::vector<OpenSessionInfo>& sessions) {
  if (sessions.empty()) return "no session is open\n";
  std::vector<std::vector<std::string>> rows = {
      {"ID", "PEER", "MODEL", "ROWS", "SOURCES", "LAYERS", "RESERVED", "USED", "STEPS", "AGE", "IDLE"}};
  for (const OpenSessionInfo& s : sessions) {
    rows.push_back({absl::StrCat(s.id), s.peer, ModelOf(s), absl::StrCat(s.rows), absl::StrCat(s.sources),
                    absl::StrCat(s.layers), BytesText(s.reserved_bytes), BytesText(s.used_bytes), absl::StrCat(s.steps),
                    ShortDuration(s.age), ShortDuration(s.idle)});
  }
  return Columns(rows);
}

std::string Described(const OpenSessionInfo& session) {
  const auto bytes = [](std::int64_t count) { return absl::StrCat(count, " bytes (", BytesText(count), ")"); };
  return absl::StrCat("session ", session.id, "\n  peer      ", session.peer, "\n  model     ",
                      session.model.empty() ? "none" : absl::StrCat(session.model, " version ", session.version),
                      "\n  rows      ", session.rows, "\n  sources   ", session.sources, "\n  layers    ",
                      session.layers, "\n  reserved  ", bytes(session.reserved_bytes), "\n  used      ",
                      bytes(session.used_bytes), "\n  steps     ", session.steps, "\n  age       ",
                      ShortDuration(session.age), "\n  idle      ", ShortDuration(session.idle), "\n");
}

absl::StatusOr<std::vector<std::uint64_t>> SessionIds(const std::vector<std::string>& arguments) {
  std::vector<std::uint64_t> ids;
  for (const std::string& argument : arguments) {
    std::uint64_t id = 0;
    if (!absl::SimpleAtoi(argument, &id)) {
      return UsageError(absl::StrCat("ID: expected the number of a session, got ", Shown(argument)),
                        "`attnctl sessions list` shows which are open");
    }
    if (std::count(ids.begin(), ids.end(), id) == 0) ids.push_back(id);
  }
  return ids;
}

absl::Status NoSession(const std::vector<std::uint64_t>& ids) {
  return WithAdvice(
      absl::NotFoundError(absl::StrCat("ID: expected the number of an open session, got ", absl::StrJoin(ids, ", "))),
      "it may have ended by itself; `attnctl sessions list` shows which are open");
}

}  // namespace attnd::ctl
