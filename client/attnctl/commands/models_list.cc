#include "client/attnctl/commands/models_list.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/model_text.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"

namespace attnd::ctl {
namespace {

// Columns as wide as their widest cell.
std::string Columns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) absl::StrAppendFormat(&text, "%-*s  ", widths[i], row[i]);
    absl::StrAppend(&text, row.back(), "\n");
  }
  return text;
}

std::string AsTable(const std::vector<Model>& models, const std::vector<FailedModel>& failed) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "VERSION", "HEADS", "TABLES", "FORMAT", "SOURCE"}};
  for (const Model& m : models) {
    const std::string tables =
        m.tables.size() > 3 ? absl::StrCat(m.tables.size(), " tables")
                            : absl::StrJoin(m.tables, ",", [](std::string* out, const Table& t) { *out += t.name; });
    rows.push_back({m.name, absl::StrCat(m.version), absl::StrCat(m.heads), tables, m.format, m.source});
  }
  std::string text = Columns(rows);
  if (!failed.empty()) absl::StrAppend(&text, "\nnot loaded at the server's start:\n");
  for (const FailedModel& m : failed) {
    absl::StrAppend(&text, "  ", m.name, m.path == m.name ? "" : absl::StrCat(" (", m.path, ")"), ": ", m.reason, "\n");
  }
  return text;
}

std::string AsJson(const std::vector<Model>& models, const std::vector<FailedModel>& failed) {
  nlohmann::ordered_json json = {{"models", nlohmann::ordered_json::array()},
                                 {"failed_models", nlohmann::ordered_json::array()}};
  for (const Model& model : models) json["models"].push_back(ToJson(model));
  for (const FailedModel& model : failed) {
    json["failed_models"].push_back({{"name", model.name}, {"path", model.path}, {"reason", model.reason}});
  }
  return json.dump(2) + "\n";
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<Model>> models = client->ListModels(Options(flags));
  if (!models.ok()) return models.status();
  if (flags.names.value()) {
    return WriteOutput("", absl::StrJoin(*models, "", [](std::string* out, const Model& m) { *out += m.name + "\n"; }));
  }
  const absl::StatusOr<std::vector<FailedModel>> failed = client->ListFailedModels(Options(flags));
  if (!failed.ok()) return failed.status();
  return WriteOutput("", flags.WantsJson() ? AsJson(*models, *failed) : AsTable(*models, *failed));
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
