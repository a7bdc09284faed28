#include "server/models/model_proto.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "errors/field_error.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using Floats = google::protobuf::RepeatedField<float>;

void Add(const std::vector<float>& values, Floats& proto) { proto.Add(values.begin(), values.end()); }

std::vector<float> ValuesOf(const Floats& proto) { return {proto.begin(), proto.end()}; }

// Fills in the rule of a table message.
struct RuleToProto {
  v1::Table& table;
  bool include_values;

  void operator()(const bias::T5Rule& rule) const {
    v1::T5Buckets& t5 = *table.mutable_t5();
    t5.set_num_buckets(rule.num_buckets);
    t5.set_max_distance(rule.max_distance);
    if (include_values) Add(rule.values, *t5.mutable_values());
  }
  void operator()(const bias::AlibiRule& rule) const {
    v1::AlibiSlopes& alibi = *table.mutable_alibi();
    if (include_values) Add(rule.slopes, *alibi.mutable_slopes());
  }
  void operator()(const bias::PerOffsetRule& rule) const {
    v1::PerOffset& per_offset = *table.mutable_per_offset();
    per_offset.set_min_offset(rule.min_offset);
    if (include_values) Add(rule.values, *per_offset.mutable_values());
  }
};

// The path of the fields of the table's rule; "table." if it has none.
std::string RulePath(const v1::Table& table) {
  const auto* const rule =
      table.GetReflection()->GetOneofFieldDescriptor(table, v1::Table::descriptor()->FindOneofByName("rule"));
  return rule == nullptr ? "table." : absl::StrCat("table.", rule->name(), ".");
}

absl::Status CheckCount(absl::string_view field, std::int64_t count, std::int64_t max_table_values) {
  if (count <= max_table_values) return absl::OkStatus();
  return FieldError(absl::StatusCode::kResourceExhausted, field,
                    absl::StrCat("at most ", max_table_values, " values (--max_table_values)"), absl::StrCat(count));
}

absl::StatusOr<bias::Rule> PerOffsetOf(const v1::Table& table) {
  const v1::PerOffset& per_offset = table.per_offset();
  if (table.bidirectional() != (per_offset.min_offset() < 0)) {
    return InvalidField("table.bidirectional", "true exactly if table.per_offset.min_offset is negative",
                        table.bidirectional() ? "true" : "false");
  }
  return bias::PerOffsetRule{per_offset.min_offset(), ValuesOf(per_offset.values())};
}

// Grows `ticket` for the rule's values, before they are copied.
absl::Status Count(absl::string_view field, std::int64_t count, std::int64_t max_table_values,
                   bias::TableTicket& ticket) {
  ATTND_RETURN_IF_ERROR(CheckCount(field, count, max_table_values));
  return ticket.GrowTo(bias::RuleBytes(count));
}

absl::StatusOr<bias::Rule> RuleOf(const v1::Table& table, std::int64_t max_table_values, bias::TableTicket& ticket) {
  switch (table.rule_case()) {
    case v1::Table::kT5: {
      const v1::T5Buckets& t5 = table.t5();
      ATTND_RETURN_IF_ERROR(Count("table.t5.values", t5.values_size(), max_table_values, ticket));
      return bias::T5Rule{t5.num_buckets(), t5.max_distance(), table.bidirectional(), ValuesOf(t5.values())};
    }
    case v1::Table::kAlibi:
      ATTND_RETURN_IF_ERROR(Count("table.alibi.slopes", table.alibi().slopes_size(), max_table_values, ticket));
      return bias::AlibiRule{table.bidirectional(), ValuesOf(table.alibi().slopes())};
    case v1::Table::kPerOffset:
      ATTND_RETURN_IF_ERROR(
          Count("table.per_offset.values", table.per_offset().values_size(), max_table_values, ticket));
      return PerOffsetOf(table);
    case v1::Table::RULE_NOT_SET:
      break;
  }
  return InvalidField("table.rule", "t5, alibi or per_offset", "none");
}

// Whether an error blames the whole table, as errors of a ticket do.
bool IsOfTheTable(const absl::Status& status) {
  const auto fault = errors::FaultOf(status);
  return fault.has_value() && fault->field == "table";
}

}  // namespace

void FillModel(const model::Model& model, bool include_values, v1::Model& proto) {
  proto.set_name(model.name());
  proto.set_version(model.version());
  for (const auto& [name, table] : model.contents().tables) {
    v1::Table& table_proto = *proto.add_tables();
    table_proto.set_name(name);
    table_proto.set_heads(table.heads());
    table_proto.set_bidirectional(table.bidirectional());
    std::visit(RuleToProto{table_proto, include_values}, table.rule());
    proto.set_heads(table.heads());
  }
  proto.set_source(model.source());
  proto.set_format(model.contents().format);
  proto.set_architecture(model.contents().architecture);
  proto.set_content_hash(model.content_hash());
  *proto.mutable_loaded_at() = ToProto(model.loaded_at());
}

absl::StatusOr<bias::BiasTable> TableOf(const v1::Table& table, std::int64_t max_table_values,
                                        bias::TableTicket ticket) {
  if (table.heads() < 1) return InvalidField("table.heads", "at least 1", table.heads());
  ATTND_ASSIGN_OR_RETURN(bias::Rule rule, RuleOf(table, max_table_values, ticket));
  absl::StatusOr<bias::BiasTable> made =
      bias::BiasTable::Create(table.heads(), std::move(rule), max_table_values, std::move(ticket));
  // Any error here is about a field of the rule, or the table is too large for the memory limit.
  if (!made.ok() && !IsOfTheTable(made.status())) return errors::Under(RulePath(table), made.status());
  return made;
}

}  // namespace attnd::server
