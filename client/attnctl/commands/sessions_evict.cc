#include "client/attnctl/commands/sessions_evict.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/session_text.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

using Ids = std::vector<std::uint64_t>;

std::string Said(const Ids& evicted, const Ids& not_found, const Flags& flags) {
  if (flags.WantsJson()) {
    return nlohmann::ordered_json{{"evicted", evicted}, {"not_found", not_found}}.dump(2) + "\n";
  }
  std::string text;
  for (const std::uint64_t id : evicted) absl::StrAppend(&text, "evicted session ", id, "\n");
  return text;
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  const absl::StatusOr<Ids> ids = SessionIds(arguments);
  if (!ids.ok()) return ids.status();
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  Ids evicted, not_found;
  absl::Status failed;
  for (const std::uint64_t id : *ids) {
    const absl::Status status = client->EvictSession(id, Options(flags));
    if (!status.ok() && !absl::IsNotFound(status)) {
      failed = status;
      break;
    }
    (status.ok() ? evicted : not_found).push_back(id);
  }
  // Prints what was done even if a later step failed.
  if (failed.ok() || !evicted.empty()) {
    if (absl::Status said = WriteOutput("", Said(evicted, not_found, flags)); !said.ok()) return said;
  }
  if (!failed.ok()) return failed;
  return not_found.empty() ? absl::OkStatus() : NoSession(not_found);
}

}  // namespace

Command SessionsEvictCommand() {
  return {"sessions evict",
          "ID...",
          "end sessions: their callers get ABORTED, and their memory is free",
          "What a session keeps is lost; its caller may open another and send the tokens again. All that can be ended\n"
          "are, and the exit code is 4 if one was not there.\n\n"
          "  attnctl sessions evict 3 5",
          {"json", "format"},
          Run,
          "EvictSessionRequest",
          TextOrJson()};
}

}  // namespace attnd::ctl
