// Models and tables as messages, both ways.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "attnd/v1/model.pb.h"
#include "bias/bias_table.h"
#include "model/model.h"

namespace attnd::server {

// The tables' values only if asked for.
v1::Model ToProto(const model::Model& model, bool include_values);

// A table that a caller sent. Takes the values out of the message, so that they are held twice only while they are
// copied. Errors: INVALID_ARGUMENT naming the field, RESOURCE_EXHAUSTED for more values than `max_table_values`, and
// where `ticket`, which counts the table, cannot grow.
absl::StatusOr<bias::BiasTable> TakeTable(v1::Table& table, std::int64_t max_table_values, bias::TableTicket ticket);

}  // namespace attnd::server
