#include "client/attnctl/commands/models_load.h"

#include <optional>
#include <string>

#include "attnd/error_detail.h"
#include "client/attnctl/model_text.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  Progress progress("loading " + arguments[0]);
  const absl::StatusOr<Model> model = client->LoadModel(arguments[0], flags.name.value(), Options(flags));
  const std::optional<ErrorDetail> detail = GetErrorDetail(model.status());
  if (detail.has_value() && detail->field == "path") {
    return WithAdvice(
        model.status(),
        "PATH is on the server's machine, below attnd's --model_root; `attnctl models upload` sends a file "
        "from here");
  }
  return PrintMade("loaded", model, flags);
}

}  // namespace

Command ModelsLoadCommand() {
  return {
      "models load",
      "PATH",
      "load a model from the server's model root",
      "PATH is a Hugging Face checkpoint folder, a GGUF file or a JSON table, relative to the server's --model_root.",
      {"name", "json", "format"},
      Run,
      "LoadModelRequest",
      TextOrJson()};
}

}  // namespace attnd::ctl
