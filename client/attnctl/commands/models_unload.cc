#include "client/attnctl/commands/models_unload.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  if (absl::Status s = client->UnloadModel(arguments[0], Options(flags)); !s.ok()) return s;
  const nlohmann::ordered_json json = {{"unloaded", arguments[0]}};
  return WriteOutput("", flags.WantsJson() ? json.dump(2) + "\n" : absl::StrCat("unloaded ", arguments[0], "\n"));
}

}  // namespace

Command ModelsUnloadCommand() {
  return {"models unload",    "MODEL", "remove a model",     "Calls that are being computed finish with it.",
          {"json", "format"}, Run,     "UnloadModelRequest", TextOrJson()};
}

}  // namespace attnd::ctl
