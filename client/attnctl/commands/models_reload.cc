#include "client/attnctl/commands/models_reload.h"

#include <string>

#include "client/attnctl/model_text.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  Progress progress("reloading " + arguments[0]);
  return PrintMade("reloaded", client->ReloadModel(arguments[0], Options(flags)), flags);
}

}  // namespace

Command ModelsReloadCommand() {
  return {"models reload",
          "MODEL",
          "read a model again from where it was loaded",
          "If that fails the loaded version stays.",
          {"json", "format"},
          Run,
          "ReloadModelRequest",
          TextOrJson()};
}

}  // namespace attnd::ctl
