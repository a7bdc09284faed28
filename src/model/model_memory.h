// The memory that models' tables take, and the two limits on it: per model, and in total.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "bias/table_ticket.h"
#include "memory/ledger.h"

namespace attnd::model {

// Accounts for the memory that tables hold (BiasTable::bytes). A table counts from before its values are allocated
// until its last copy is gone: in loaded models, in old versions that calls still use, and while it is read. Versions
// of a model that share a table count it once. The total is a separate ledger with one account: models stay while calls
// come and go, so neither may use up the other's ledger. Thread-safe; tickets may outlive it.
class ModelMemory {
 public:
  ModelMemory(std::int64_t max_model_bytes, std::int64_t max_total_bytes);

  // The tables of one version of a model while it is read. Copies stand for the same version. Thread-safe.
  class Version {
   public:
    // A ticket for one table. Growing it returns RESOURCE_EXHAUSTED, field "table", if a limit would be exceeded. A
    // table that is given up still counts towards its version.
    bias::TableTicket NewTicket() const;

   private:
    friend class ModelMemory;
    struct Counts;
    std::shared_ptr<Counts> counts_;
  };
  Version NewVersion() const;

  // Errors: RESOURCE_EXHAUSTED, field "table", if the tables of one version exceed the limit per model. `held`: bytes
  // of the tables that stay; `more`: bytes of the table that is added.
  absl::Status CheckModel(std::int64_t held, std::int64_t more) const;

  // Memory that all tables hold now.
  std::int64_t used_bytes() const { return total_->used_bytes(); }

 private:
  const std::int64_t max_model_bytes_;
  const std::shared_ptr<memory::Ledger> total_;  // shared with the tickets
  const std::shared_ptr<memory::Account> account_;
};

}  // namespace attnd::model
