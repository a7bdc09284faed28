#include "client/attnctl/commands/sessions_show.h"

#include <cstdint>
#include <string>
#include <vector>

#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/session_text.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  const absl::StatusOr<std::vector<std::uint64_t>> ids = SessionIds(arguments);
  if (!ids.ok()) return ids.status();
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<OpenSessionInfo>> sessions = client->ListSessions(Options(flags));
  if (!sessions.ok()) return sessions.status();
  for (const OpenSessionInfo& session : *sessions) {
    if (session.id != ids->front()) continue;
    return WriteOutput("", flags.WantsJson() ? ToJson(session).dump(2) + "\n" : Described(session));
  }
  return NoSession(*ids);
}

}  // namespace

Command SessionsShowCommand() {
  return {"sessions show",    "ID", "describe an open session", "",
          {"json", "format"}, Run,  "ListSessionsRequest",      TextOrJson()};
}

}  // namespace attnd::ctl
