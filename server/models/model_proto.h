// Models and tables as messages, both ways.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "attnd/v1/model.pb.h"
#include "bias/bias_table.h"
#include "model/model.h"

namespace attnd::server {

// Fills in an empty `proto`, the tables' values only if asked for. On an arena where memory may run out (OnArena).
void FillModel(const model::Model& model, bool include_values, v1::Model& proto);

// A table that a caller sent. Errors: INVALID_ARGUMENT naming the field, RESOURCE_EXHAUSTED for more values than
// `max_table_values`, and where `ticket`, which counts the table, cannot grow.
absl::StatusOr<bias::BiasTable> TableOf(const v1::Table& table, std::int64_t max_table_values,
                                        bias::TableTicket ticket);

}  // namespace attnd::server
