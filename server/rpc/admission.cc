#include "server/rpc/admission.h"

#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

using Reason = memory::LedgerRefusal::Reason;

absl::Status Never(const memory::Ledger& ledger, const memory::LedgerRefusal& refusal, absl::string_view field) {
  const std::string expected =
      ledger.shares() ? absl::StrCat("at most ", refusal.most, " bytes, the half that one peer can have of the ",
                                     ledger.total(), " bytes in flight (--max_inflight_bytes)")
                      : absl::StrCat("at most ", refusal.most, " bytes in flight (--max_inflight_bytes)");
  return FieldError(absl::StatusCode::kResourceExhausted, field, expected,
                    absl::StrCat(refusal.asked, " bytes, which can never fit"));
}

absl::Status NotNow(const memory::Ledger& ledger, const memory::LedgerRefusal& refusal, absl::string_view field) {
  if (refusal.reason == Reason::kTotal) {
    return FieldError(absl::StatusCode::kResourceExhausted, field,
                      absl::StrCat("at most ", refusal.most, " bytes in flight (--max_inflight_bytes)"),
                      absl::StrCat(refusal.asked, " bytes beside the ", refusal.used, " of other calls"));
  }
  return FieldError(absl::StatusCode::kResourceExhausted, field,
                    absl::StrCat("at most ", refusal.most, " bytes for one peer while ", ledger.total() - refusal.used,
                                 " of ", ledger.total(), " are free (--max_inflight_bytes, --peer_shares)"),
                    absl::StrCat(refusal.asked, " bytes beside the ", refusal.held, " of the same peer"));
}

}  // namespace

absl::StatusOr<memory::Ticket> Admit(memory::Ledger& ledger, std::shared_ptr<memory::Account> account,
                                     std::int64_t bytes, std::int64_t beside, absl::string_view field) {
  std::variant<memory::Ticket, memory::LedgerRefusal> taken = ledger.Take(std::move(account), bytes, beside);
  if (auto* const ticket = std::get_if<memory::Ticket>(&taken)) return std::move(*ticket);
  const memory::LedgerRefusal& refusal = std::get<memory::LedgerRefusal>(taken);
  if (refusal.reason == Reason::kNever) return Never(ledger, refusal, field);
  absl::Status status = NotNow(ledger, refusal, field);
  SetRetryDelay(absl::FromChrono(refusal.come_back), status);
  return status;
}

}  // namespace attnd::server
