// Memory for calls, from the ledger: what finds no room is refused at once instead of all calls suffering.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "memory/ledger.h"

namespace attnd::server {

// The ticket of `bytes` >= 0 for the peer of `account`, whose request holds `beside` already. Errors:
// RESOURCE_EXHAUSTED blaming `field` ("request") and naming the bound that was met: what one peer can ever have, all
// that is in flight, or the peer's share of it. Where waiting helps, which it does for the latter two, the error says
// when to come back (SetRetryDelay).
absl::StatusOr<memory::Ticket> Admit(memory::Ledger& ledger, std::shared_ptr<memory::Account> account,
                                     std::int64_t bytes, std::int64_t beside = 0, absl::string_view field = "request");

}  // namespace attnd::server
