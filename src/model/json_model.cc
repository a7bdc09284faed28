#include "model/json_model.h"

#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "files/strict_json.h"
#include "model/names.h"
#include "model/said.h"
#include "nlohmann/json.hpp"

namespace attnd::model {
namespace {

using Json = nlohmann::json;

constexpr int kMaxModelDepth = 8;
constexpr double kLargestFloat = std::numeric_limits<float>::max();

absl::Status Expected(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": expected ", what));
}

// Refuses unknown fields, so that a misspelt field is not taken for a missing one.
absl::Status CheckFields(const Json& object, std::initializer_list<absl::string_view> known) {
  for (const auto& [name, value] : object.items()) {
    bool found = false;
    for (const absl::string_view field : known) found = found || field == name;
    if (!found) return absl::InvalidArgumentError(absl::StrCat("unknown field ", Quoted(name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> Integer(const Json& object, const char* field) {
  const auto found = object.find(field);
  const bool valid = found != object.end() && found->is_number_integer() &&
                     (!found->is_number_unsigned() ||
                      found->get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()});
  if (!valid) return Expected(field, absl::StrCat("an integer, got ", SaidOf(object, field)));
  return found->get<std::int64_t>();
}

absl::StatusOr<bool> Flag(const Json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end()) return false;
  if (!found->is_boolean()) return Expected(field, absl::StrCat("true or false, got ", Said(*found)));
  return found->get<bool>();
}

// Appends a list of numbers, each rounded to the nearest float.
absl::Status AppendFloats(const Json& list, absl::string_view field, std::vector<float>& floats) {
  if (!list.is_array()) return Expected(field, absl::StrCat("a list of numbers, got ", Said(list)));
  for (const Json& element : list) {
    if (!element.is_number()) return Expected(field, absl::StrCat("numbers, got ", Said(element)));
    const auto value = element.get<double>();
    if (std::abs(value) > kLargestFloat)
      return Expected(field, absl::StrCat("numbers that a float holds, got ", Said(element)));
    floats.push_back(static_cast<float>(value));
  }
  return absl::OkStatus();
}

// A list of lists of the same length.
struct Rows {
  std::int64_t count;
  std::int64_t length;
  std::vector<float> values;
};

absl::StatusOr<Rows> ReadRows(const Json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_array() || found->empty()) {
    return Expected(field, absl::StrCat("a list of lists, got ", SaidOf(object, field)));
  }
  Rows rows{static_cast<std::int64_t>(found->size()), 0, {}};
  for (const Json& row : *found) {
    if (absl::Status appended = AppendFloats(row, field, rows.values); !appended.ok()) return appended;
    if (rows.length == 0) rows.length = static_cast<std::int64_t>(row.size());
    if (row.empty() || static_cast<std::int64_t>(row.size()) != rows.length) {
      return Expected(field, "lists of one length, from 1 on");
    }
  }
  return rows;
}

struct HeadsAndRule {
  std::int64_t heads;
  bias::Rule rule;
};

absl::StatusOr<HeadsAndRule> ReadT5(const Json& table) {
  const bool book = table.contains("nb") || table.contains("dist_max");
  const absl::Status known =
      book ? CheckFields(table, {"rule", "nb", "dist_max", "bidirectional", "values"})
           : CheckFields(table, {"rule", "num_buckets", "max_distance", "bidirectional", "values"});
  if (!known.ok()) return known;
  const auto buckets = Integer(table, book ? "nb" : "num_buckets");
  if (!buckets.ok()) return buckets.status();
  const auto max_distance = Integer(table, book ? "dist_max" : "max_distance");
  if (!max_distance.ok()) return max_distance.status();
  const auto bidirectional = Flag(table, "bidirectional");
  if (!bidirectional.ok()) return bidirectional.status();
  auto rows = ReadRows(table, "values");
  if (!rows.ok()) return rows.status();
  // The book numbers its buckets from 0 to nb.
  if (rows->count - (book ? 1 : 0) != *buckets) {
    return Expected("values", absl::StrCat("a list for each bucket (", book ? "nb + 1" : "num_buckets", "), got ",
                                           rows->count, " lists for ", *buckets));
  }
  return HeadsAndRule{rows->length, bias::T5Rule{rows->count, *max_distance, *bidirectional, std::move(rows->values)}};
}

absl::StatusOr<HeadsAndRule> ReadAlibi(const Json& table) {
  if (absl::Status known = CheckFields(table, {"rule", "bidirectional", "slopes"}); !known.ok()) return known;
  const auto bidirectional = Flag(table, "bidirectional");
  if (!bidirectional.ok()) return bidirectional.status();
  std::vector<float> slopes;
  const auto list = table.find("slopes");
  if (list == table.end()) return Expected("slopes", "a list of numbers, got none");
  if (absl::Status read = AppendFloats(*list, "slopes", slopes); !read.ok()) return read;
  const auto heads = static_cast<std::int64_t>(slopes.size());
  return HeadsAndRule{heads, bias::AlibiRule{*bidirectional, std::move(slopes)}};
}

absl::StatusOr<HeadsAndRule> ReadPerOffset(const Json& table) {
  if (absl::Status known = CheckFields(table, {"rule", "min_offset", "values"}); !known.ok()) return known;
  const auto min_offset = Integer(table, "min_offset");
  if (!min_offset.ok()) return min_offset.status();
  auto rows = ReadRows(table, "values");
  if (!rows.ok()) return rows.status();
  return HeadsAndRule{rows->count, bias::PerOffsetRule{*min_offset, std::move(rows->values)}};
}

absl::StatusOr<HeadsAndRule> ReadTable(const Json& table) {
  if (!table.is_object()) return Expected("table", absl::StrCat("an object, got ", Said(table)));
  const std::string rule = table.contains("rule") && table["rule"].is_string() ? table["rule"].get<std::string>() : "";
  if (rule == "t5") return ReadT5(table);
  if (rule == "alibi") return ReadAlibi(table);
  if (rule == "per_offset") return ReadPerOffset(table);
  return Expected("rule", absl::StrCat("t5, alibi or per_offset, got ", SaidOf(table, "rule")));
}

}  // namespace

absl::StatusOr<ModelTables> ParseJsonModel(std::string_view text, const ReadLimits& limits) {
  const absl::StatusOr<files::JsonDocument> json = files::ParseStrictJson(text, kMaxModelDepth);
  if (!json.ok()) return json.status();
  if (!json->is_object()) return absl::InvalidArgumentError("expected an object");
  if (absl::Status known = CheckFields(*json, {"architecture", "tables"}); !known.ok()) return known;
  ModelTables contents;
  contents.format = "json";
  if (const auto architecture = json->find("architecture"); architecture != json->end()) {
    if (!architecture->is_string() || architecture->get_ref<const std::string&>().size() > 64) {
      return Expected("architecture", "a string of up to 64 bytes");
    }
    contents.architecture = architecture->get<std::string>();
  }
  const auto tables = json->find("tables");
  if (tables == json->end() || !tables->is_object() || tables->empty()) {
    return Expected("tables", "an object of at least one table");
  }
  for (const auto& [name, table] : tables->items()) {
    auto read = ReadTable(table);
    if (!read.ok()) return Annotate(read.status(), absl::StrCat("tables.", Quoted(name)));
    // The values are already in memory, with the text, before their number is known.
    absl::StatusOr<bias::TableTicket> ticket = limits.TicketFor(0);
    if (!ticket.ok()) return ticket.status();
    const absl::Status added = AddTable(name, read->heads, std::move(read->rule), limits, *std::move(ticket), contents);
    if (!added.ok()) return added;
  }
  return contents;
}

}  // namespace attnd::model
