#include "client/attnctl/commands/models_load.h"

#include <string>

#include "client/attnctl/model_text.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  Progress progress("loading " + arguments[0]);
  return PrintMade("loaded", client->LoadModel(arguments[0], flags.name.value(), Options(flags)), flags);
}

}  // namespace

Command ModelsLoadCommand() {
  return {
      "models load",
      "PATH",
      "load a model from the server's model root",
      "PATH is a Hugging Face checkpoint folder, a GGUF file or a JSON table, relative to the server's --model_root.",
      {"name", "json"},
      Run};
}

}  // namespace attnd::ctl
