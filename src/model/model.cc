#include "model/model.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "errors/field_error.h"
#include "model/names.h"

namespace attnd::model {

std::int64_t ModelTables::bytes() const {
  std::int64_t sum = 0;
  for (const auto& [name, table] : tables) sum += table.bytes();
  return sum;
}

Model::Model(std::string name, std::uint64_t version, std::string source, absl::Time loaded_at, ModelTables contents,
             std::string content_hash)
    : name_(std::move(name)),
      version_(version),
      source_(std::move(source)),
      loaded_at_(loaded_at),
      contents_(std::move(contents)),
      content_hash_(std::move(content_hash)) {}

absl::StatusOr<Model::Found> Model::FindTable(std::string_view name) const {
  std::vector<std::string_view> candidates = {name, SharedTableName(name)};
  if (name.empty()) candidates = {"decoder", "decoder.0"};
  for (const std::string_view candidate : candidates) {
    const auto found = contents_.tables.find(std::string(candidate));
    if (found != contents_.tables.end()) return Found{found->first, &found->second};
  }
  if (name.empty() && contents_.tables.size() == 1) {
    const auto only = contents_.tables.begin();
    return Found{only->first, &only->second};
  }
  std::vector<std::string> names;
  for (const auto& [table_name, table] : contents_.tables) names.push_back(table_name);
  return errors::FieldError(absl::StatusCode::kNotFound, "table",
                            absl::StrCat("one of model ", Quoted(name_), "'s: ", absl::StrJoin(names, ", ")),
                            name.empty() ? "none, and the model has no decoder's" : Quoted(name));
}

}  // namespace attnd::model
