// Reserves memory for calls in the ledger. A call for which there is no room is refused at once, so that the others do
// not suffer.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "memory/ledger.h"

namespace attnd::server {

// Reserves `bytes` >= 0 for the peer of `account`, whose request already holds `beside` bytes. Errors:
// RESOURCE_EXHAUSTED blaming `field` and naming the bound that was exceeded: the most that one peer can ever have, the
// total in flight, or the peer's share. For the latter two waiting can help, and the error has a retry delay
// (SetRetryDelay).
absl::StatusOr<memory::Ticket> Admit(memory::Ledger& ledger, std::shared_ptr<memory::Account> account,
                                     std::int64_t bytes, std::int64_t beside = 0, absl::string_view field = "request");

}  // namespace attnd::server
