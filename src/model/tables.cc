#include "model/tables.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "errors/field_error.h"
#include "model/names.h"

namespace attnd::model {
namespace {

// The number of values of the rule itself.
std::int64_t ValuesOf(const bias::Rule& rule) {
  struct Count {
    std::size_t operator()(const bias::T5Rule& t5) const { return t5.values.size(); }
    std::size_t operator()(const bias::AlibiRule& alibi) const { return alibi.slopes.size(); }
    std::size_t operator()(const bias::PerOffsetRule& per_offset) const { return per_offset.values.size(); }
  };
  return static_cast<std::int64_t>(std::visit(Count{}, rule));
}

absl::Status CheckSize(std::string_view name, std::int64_t values, const ReadLimits& limits) {
  if (values <= limits.max_table_values) return absl::OkStatus();
  return errors::FieldError(absl::StatusCode::kResourceExhausted, "table",
                            absl::StrCat("at most ", limits.max_table_values, " values (max_table_values)"),
                            absl::StrCat(values, " in table ", Quoted(name)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<files::ByteSource>> OpenWithin(OpenByName open, const std::string& name,
                                                              const ReadLimits& limits) {
  auto source = open(name);
  if (!source.ok()) return source;
  if ((*source)->size() > limits.max_file_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        name, ": has ", (*source)->size(), " bytes, more than max_model_file_bytes, ", limits.max_file_bytes));
  }
  return source;
}

absl::StatusOr<bias::TableTicket> ReadLimits::TicketFor(std::int64_t values) const {
  if (memory == nullptr) return bias::TableTicket();
  bias::TableTicket ticket = memory->NewTicket();
  if (absl::Status taken = ticket.GrowTo(bias::RuleBytes(values)); !taken.ok()) return taken;
  return ticket;
}

absl::Status AddTable(std::string_view name, std::int64_t heads, bias::Rule rule, const ReadLimits& limits,
                      bias::TableTicket ticket, ModelTables& contents) {
  if (absl::Status size = CheckSize(name, ValuesOf(rule), limits); !size.ok()) return size;
  auto table = bias::BiasTable::Create(heads, std::move(rule), limits.max_table_values, std::move(ticket));
  if (!table.ok()) return Annotate(table.status(), absl::StrCat("table ", Quoted(name)));
  return AddTable(name, *std::move(table), limits, contents);
}

absl::Status AddTable(std::string_view name, bias::BiasTable table, const ReadLimits& limits, ModelTables& contents) {
  if (absl::Status valid = CheckTableName(name); !valid.ok()) return valid;
  for (const std::int64_t values :
       {ValuesOf(table.rule()), static_cast<std::int64_t>(table.offset_form().values.size())}) {
    if (absl::Status size = CheckSize(name, values, limits); !size.ok()) return size;
  }
  if (contents.tables.size() >= kMaxTablesPerModel) {
    return errors::FieldError(absl::StatusCode::kResourceExhausted, "table",
                              absl::StrCat("at most ", kMaxTablesPerModel, " tables in a model"), "one more");
  }
  if (!contents.tables.empty() && contents.tables.begin()->second.heads() != table.heads()) {
    return errors::InvalidField(
        "table.heads", absl::StrCat(contents.tables.begin()->second.heads(), " as in the model's other tables"),
        absl::StrCat(table.heads(), " in table ", Quoted(name)));
  }
  if (!contents.tables.emplace(name, std::move(table)).second) {
    return errors::InvalidField("table.name", "one that no other table has", Quoted(name));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadText(const files::ByteSource& source, std::int64_t max_bytes) {
  if (source.size() > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("expected at most ", max_bytes, " bytes, got ", source.size()));
  }
  std::string text(static_cast<std::size_t>(source.size()), '\0');
  const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size());
  if (absl::Status read = source.ReadAt(0, bytes); !read.ok()) return read;
  return text;
}

absl::Status Annotate(const absl::Status& status, std::string_view where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(std::string(where), ": ", status.message()));
}

}  // namespace attnd::model
