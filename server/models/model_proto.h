// Converts models to messages, and messages to tables.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "attnd/v1/model.pb.h"
#include "bias/bias_table.h"
#include "model/model.h"

namespace attnd::server {

// Fills in `proto`, which must be empty, and on an arena if memory may run out (OnArena).
void FillModel(const model::Model& model, bool include_values, v1::Model& proto);

// Makes a table from a caller's message. `ticket` counts the table's memory. Errors: INVALID_ARGUMENT naming the field,
// RESOURCE_EXHAUSTED if there are more values than `max_table_values` or if `ticket` cannot grow.
absl::StatusOr<bias::BiasTable> TableOf(const v1::Table& table, std::int64_t max_table_values,
                                        bias::TableTicket ticket);

}  // namespace attnd::server
