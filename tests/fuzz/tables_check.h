// What holds of the tables of any model that a reader accepts.
#pragma once

#include <cmath>
#include <cstdint>

#include "check.h"
#include "model/model.h"
#include "model/tables.h"

namespace attnd::fuzz {

// Small, so that an input cannot ask for much time or memory.
inline constexpr model::ReadLimits kLimits{1 << 16, 1 << 24};

inline void CheckTables(const model::ModelTables& contents) {
  Check(!contents.tables.empty(), "a model has a table");
  const std::int64_t heads = contents.tables.begin()->second.heads();
  for (const auto& [name, table] : contents.tables) {
    Check(table.heads() == heads, "all tables have the same heads");
    Check(static_cast<std::int64_t>(table.offset_form().values.size()) <= kLimits.max_table_values, "limits hold");
    for (const std::int64_t offset : {INT64_MIN, std::int64_t{-7}, std::int64_t{0}, std::int64_t{9}, INT64_MAX}) {
      Check(std::isfinite(table.Value(heads - 1, offset)), "values are finite");
    }
  }
}

}  // namespace attnd::fuzz
