#include "client/attnctl/commands/models_list.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/columns.h"
#include "client/attnctl/model_text.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"

namespace attnd::ctl {
namespace {

std::string AsTable(const ModelList& list) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "VERSION", "HEADS", "TABLES", "FORMAT", "SOURCE"}};
  for (const Model& m : list.models) {
    const std::string tables =
        m.tables.size() > 3 ? absl::StrCat(m.tables.size(), " tables")
                            : absl::StrJoin(m.tables, ",", [](std::string* out, const Table& t) { *out += t.name; });
    rows.push_back({m.name, absl::StrCat(m.version), absl::StrCat(m.heads), tables, m.format, m.source});
  }
  std::string text = Columns(rows);
  if (!list.failed.empty()) absl::StrAppend(&text, "\nnot loaded at the server's start:\n");
  for (const FailedModel& m : list.failed) {
    absl::StrAppend(&text, "  ", m.name, m.path == m.name ? "" : absl::StrCat(" (", m.path, ")"), ": ", m.reason, "\n");
  }
  return text;
}

std::string AsJson(const ModelList& list) {
  nlohmann::ordered_json json = {{"models", nlohmann::ordered_json::array()},
                                 {"failed_models", nlohmann::ordered_json::array()}};
  for (const Model& model : list.models) json["models"].push_back(ToJson(model));
  for (const FailedModel& model : list.failed) {
    json["failed_models"].push_back({{"name", model.name}, {"path", model.path}, {"reason", model.reason}});
  }
  return json.dump(2) + "\n";
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<ModelList> list = client->ListAllModels(Options(flags));
  if (!list.ok()) return list.status();
  if (flags.names.value()) {
    return WriteOutput(
        "", absl::StrJoin(list->models, "", [](std::string* out, const Model& m) { *out += m.name + "\n"; }));
  }
  return WriteOutput("", flags.WantsJson() ? AsJson(*list) : AsTable(*list));
}

}  // namespace

Command ModelsListCommand() {
  return {"models list",
          "",
          "list the loaded models, and those that the server's start could not load",
          "",
          {"names", "json", "format"},
          Run,
          "ListModelsRequest",
          TextOrJson()};
}

}  // namespace attnd::ctl
