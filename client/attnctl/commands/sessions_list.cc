#include "client/attnctl/commands/sessions_list.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/session_text.h"

namespace attnd::ctl {
namespace {

std::string AsJson(const std::vector<OpenSessionInfo>& sessions) {
  nlohmann::ordered_json json = {{"sessions", nlohmann::ordered_json::array()}};
  for (const OpenSessionInfo& session : sessions) json["sessions"].push_back(ToJson(session));
  return json.dump(2) + "\n";
}

std::string Ids(const std::vector<OpenSessionInfo>& sessions) {
  std::string text;
  for (const OpenSessionInfo& session : sessions) absl::StrAppend(&text, session.id, "\n");
  return text;
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<OpenSessionInfo>> sessions = client->ListSessions(Options(flags));
  if (!sessions.ok()) return sessions.status();
  return WriteOutput("", flags.ids.value()   ? Ids(*sessions)
                         : flags.WantsJson() ? AsJson(*sessions)
                                             : SessionTable(*sessions));
}

}  // namespace

Command SessionsListCommand() {
  return {"sessions list",
          "",
          "list the open sessions, the oldest first",
          "A session keeps keys and values in the server for a caller that decodes. RESERVED is what it holds of the\n"
          "server's memory until it ends, USED what its pages take of that now.",
          {"ids", "json", "format"},
          Run,
          "ListSessionsRequest",
          TextOrJson()};
}

}  // namespace attnd::ctl
