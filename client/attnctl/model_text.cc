#include "client/attnctl/model_text.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/attnctl/output.h"

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

std::string Said(const T5Buckets& rule) {
  return absl::StrCat("T5, ", rule.num_buckets, " buckets, max distance ", rule.max_distance);
}
std::string Said(const AlibiSlopes&) { return "ALiBi"; }
std::string Said(const PerOffset& rule) { return absl::StrCat("a value per offset from ", rule.min_offset, " on"); }

std::string OneLine(const Model& model) {
  return absl::StrFormat("%s version %d (%s, %d heads)\n", model.name, model.version,
                         absl::StrJoin(model.tables, ", ", [](std::string* out, const Table& t) { *out += t.name; }),
                         model.heads);
}

}  // namespace

nlohmann::ordered_json ToJson(const Model& model) {
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

absl::Status PrintMade(const char* verb, const absl::StatusOr<Model>& model, const Flags& flags) {
  if (!model.ok()) return model.status();
  if (flags.WantsJson()) return WriteOutput("", ToJson(*model).dump(2) + "\n");
  return WriteOutput("", absl::StrCat(verb, " ", OneLine(*model)));
}

}  // namespace attnd::ctl
