#include <algorithm>
#include <iostream>
#include <string>
#include <variant>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/progress.h"
#include "nlohmann/json.hpp"

namespace attnd::ctl {
namespace {

using Json = nlohmann::ordered_json;

std::string Stamp(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone()); }

void Put(Json& json, const T5Buckets& rule) {
  json["rule"] = "t5";
  json["num_buckets"] = rule.num_buckets;
  json["max_distance"] = rule.max_distance;
  if (!rule.values.empty()) json["values"] = rule.values;
}
void Put(Json& json, const AlibiSlopes& rule) {
  json["rule"] = "alibi";
  if (!rule.slopes.empty()) json["slopes"] = rule.slopes;
}
void Put(Json& json, const PerOffset& rule) {
  json["rule"] = "per_offset";
  json["min_offset"] = rule.min_offset;
  if (!rule.values.empty()) json["values"] = rule.values;
}

Json ToJson(const Model& model) {
  Json json = {{"name", model.name},
               {"version", model.version},
               {"heads", model.heads},
               {"source", model.source},
               {"format", model.format},
               {"architecture", model.architecture},
               {"content_hash", model.content_hash},
               {"loaded_at", Stamp(model.loaded_at)},
               {"tables", Json::array()}};
  for (const Table& table : model.tables) {
    Json entry = {{"name", table.name}, {"heads", table.heads}, {"bidirectional", table.bidirectional}};
    std::visit([&entry](const auto& rule) { Put(entry, rule); }, table.rule);
    json["tables"].push_back(std::move(entry));
  }
  return json;
}

std::string Said(const T5Buckets& rule) {
  return absl::StrCat("T5, ", rule.num_buckets, " buckets, max distance ", rule.max_distance);
}
std::string Said(const AlibiSlopes&) { return "ALiBi"; }
std::string Said(const PerOffset& rule) { return absl::StrCat("a value per offset from ", rule.min_offset, " on"); }

std::string Described(const Model& model) {
  std::string text = absl::StrCat(model.name, " version ", model.version, "\n  heads         ", model.heads,
                                  "\n  source        ", model.source, " (", model.format, ")\n");
  if (!model.architecture.empty()) absl::StrAppend(&text, "  architecture  ", model.architecture, "\n");
  absl::StrAppend(&text, "  content hash  ", model.content_hash, "\n  loaded        ", Stamp(model.loaded_at),
                  "\n  tables\n");
  std::size_t width = 0;
  for (const Table& table : model.tables) width = std::max(width, table.name.size());
  for (const Table& table : model.tables) {
    absl::StrAppendFormat(&text, "    %-*s  %s; %s\n", width, table.name,
                          std::visit([](const auto& rule) { return Said(rule); }, table.rule),
                          table.bidirectional ? "bidirectional" : "causal");
  }
  return text;
}

std::string OneLine(const Model& model) {
  return absl::StrFormat("%s version %d (%s, %d heads)\n", model.name, model.version,
                         absl::StrJoin(model.tables, ", ", [](std::string* out, const Table& t) { *out += t.name; }),
                         model.heads);
}

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

}  // namespace

absl::Status PrintMade(const char* verb, const absl::StatusOr<Model>& model) {
  if (!model.ok()) return model.status();
  if (absl::GetFlag(FLAGS_json)) return WriteOutput("", ToJson(*model).dump(2) + "\n");
  return WriteOutput("", absl::StrCat(verb, " ", OneLine(*model)));
}

absl::Status ListModels(const std::vector<std::string>&) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<Model>> models = client->ListModels(Options());
  if (!models.ok()) return models.status();
  if (absl::GetFlag(FLAGS_json)) {
    Json json = Json::array();
    for (const Model& model : *models) json.push_back(ToJson(model));
    return WriteOutput("", json.dump(2) + "\n");
  }
  std::vector<std::vector<std::string>> rows = {{"NAME", "VERSION", "HEADS", "TABLES", "FORMAT", "SOURCE"}};
  for (const Model& m : *models) {
    const std::string tables =
        m.tables.size() > 3 ? absl::StrCat(m.tables.size(), " tables")
                            : absl::StrJoin(m.tables, ",", [](std::string* out, const Table& t) { *out += t.name; });
    rows.push_back({m.name, absl::StrCat(m.version), absl::StrCat(m.heads), tables, m.format, m.source});
  }
  return WriteOutput("", Columns(rows));
}

absl::Status ShowModel(const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  const bool json = absl::GetFlag(FLAGS_json);
  const absl::StatusOr<Model> model = client->GetModel(arguments[0], absl::GetFlag(FLAGS_version), json, Options());
  if (!model.ok()) return model.status();
  return WriteOutput("", json ? ToJson(*model).dump(2) + "\n" : Described(*model));
}

absl::Status LoadModel(const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  Progress progress("loading " + arguments[0]);
  return PrintMade("loaded", client->LoadModel(arguments[0], absl::GetFlag(FLAGS_name), Options()));
}

absl::Status ReloadModel(const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  Progress progress("reloading " + arguments[0]);
  return PrintMade("reloaded", client->ReloadModel(arguments[0], Options()));
}

absl::Status UnloadModel(const std::vector<std::string>& arguments) {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  if (absl::Status s = client->UnloadModel(arguments[0], Options()); !s.ok()) return s;
  return WriteOutput("", absl::StrCat("unloaded ", arguments[0], "\n"));
}

}  // namespace attnd::ctl
