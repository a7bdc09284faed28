#include "client/attnctl/commands/models_show.h"

#include <string>

#include "client/attnctl/model_text.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const bool json = flags.WantsJson();
  const absl::StatusOr<Model> model = client->GetModel(arguments[0], flags.version.value(), json, Options(flags));
  if (!model.ok()) return model.status();
  return WriteOutput("", json ? ToJson(*model).dump(2) + "\n" : Described(*model));
}

}  // namespace

Command ModelsShowCommand() {
  return {"models show",     "MODEL",     "describe a model and its tables", "", {"version", "json", "format"}, Run,
          "GetModelRequest", TextOrJson()};
}

}  // namespace attnd::ctl
