// How much memory the tables of models take, and the two limits on it: of one model, and of all.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "bias/table_ticket.h"
#include "memory/ledger.h"

namespace attnd::model {

// Counts what tables hold (BiasTable::bytes). A table is counted from before its values are allocated until its last
// copy is gone: in the models that are loaded, in old versions that calls still use, and while it is read. Versions of
// a model that share a table count it once. The sum for all is a ledger of its own with one account: models stay and
// calls go, so the ledger of calls must not be taken by the ones and refuse the others. Thread-safe; tickets may
// outlive it.
class ModelMemory {
 public:
  ModelMemory(std::int64_t max_model_bytes, std::int64_t max_total_bytes);

  // The tables of one model's version that is being read. Copies are the same version. Thread-safe.
  class Version {
   public:
    // Of one table. It takes RESOURCE_EXHAUSTED, field "table", for what would exceed a limit. A table that is given up
    // goes on counting for its version.
    bias::TableTicket NewTicket() const;

   private:
    friend class ModelMemory;
    struct Counts;
    std::shared_ptr<Counts> counts_;
  };
  Version NewVersion() const;

  // Errors: RESOURCE_EXHAUSTED, field "table", if the tables of one version hold more than one model may. `held` is of
  // the tables that stay, `more` of the one that is added.
  absl::Status CheckModel(std::int64_t held, std::int64_t more) const;

  // What all tables hold now.
  std::int64_t used_bytes() const { return total_->used_bytes(); }

 private:
  const std::int64_t max_model_bytes_;
  const std::shared_ptr<memory::Ledger> total_;  // shared with the tickets
  const std::shared_ptr<memory::Account> account_;
};

}  // namespace attnd::model
