// Shared by all readers: limits, and the rules that the tables of one model must satisfy together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bias/bias_table.h"
#include "files/byte_source.h"
#include "model/model.h"
#include "model/model_memory.h"

namespace attnd::model {

struct ReadLimits {
  std::int64_t max_table_values = bias::BiasTable::kMaxValues;
  std::int64_t max_file_bytes = std::int64_t{1} << 36;
  // Accounts for and limits the memory of the tables that are read; null: nothing does. Borrowed.
  const ModelMemory::Version* memory = nullptr;

  // A ticket for a table whose rule has `values` values, taken before they are read. Errors: RESOURCE_EXHAUSTED.
  absl::StatusOr<bias::TableTicket> TicketFor(std::int64_t values) const;
};

inline constexpr std::size_t kMaxTablesPerModel = 2000;

// Opens a file of a checkpoint by name.
using OpenByName = absl::FunctionRef<absl::StatusOr<std::unique_ptr<files::ByteSource>>(const std::string&)>;

// Opens `name`. Errors: RESOURCE_EXHAUSTED if it is larger than the limits allow; what `open` returns.
absl::StatusOr<std::unique_ptr<files::ByteSource>> OpenWithin(OpenByName open, const std::string& name,
                                                              const ReadLimits& limits);

// Makes a table and adds it to `contents` under `name`. `ticket`: that of the values, from TicketFor. Errors:
// INVALID_ARGUMENT for an invalid name, a name that is taken, an invalid rule, or a number of heads that differs from
// the tables already there; RESOURCE_EXHAUSTED beyond the limits.
absl::Status AddTable(std::string_view name, std::int64_t heads, bias::Rule rule, const ReadLimits& limits,
                      bias::TableTicket ticket, ModelTables& contents);

// The same for a table that exists already.
absl::Status AddTable(std::string_view name, bias::BiasTable table, const ReadLimits& limits, ModelTables& contents);

// A whole small file as text. Errors: RESOURCE_EXHAUSTED if it is larger than `max_bytes`, DATA_LOSS.
absl::StatusOr<std::string> ReadText(const files::ByteSource& source, std::int64_t max_bytes);

// `status` with `where` and a colon before its message.
absl::Status Annotate(const absl::Status& status, std::string_view where);

}  // namespace attnd::model
