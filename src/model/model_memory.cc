#include "model/model_memory.h"

#include <atomic>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "errors/field_error.h"

namespace attnd::model {
namespace {

// Adds `bytes` to `used` unless that would exceed `max`; returns whether it did. On failure, `before` is the value of
// `used`.
bool TakeWithin(std::atomic<std::int64_t>& used, std::int64_t max, std::int64_t bytes, std::int64_t& before) {
  before = used.load();
  do {
    if (bytes > max - before) return false;
  } while (!used.compare_exchange_weak(before, before + bytes));
  return true;
}

absl::Status Exceeded(absl::string_view expected, std::int64_t used, std::int64_t bytes) {
  return errors::FieldError(absl::StatusCode::kResourceExhausted, "table", expected,
                            absl::StrCat(bytes, " bytes more than the ", used, " that are held"));
}

absl::Status ModelExceeded(std::int64_t max, std::int64_t used, std::int64_t bytes) {
  return Exceeded(absl::StrCat("at most ", max, " bytes in the tables of a model (max_model_bytes)"), used, bytes);
}

}  // namespace

struct ModelMemory::Version::Counts {
  std::int64_t max_bytes;
  std::shared_ptr<memory::Ledger> total;
  std::shared_ptr<memory::Account> account;
  std::atomic<std::int64_t> used{0};

  // Takes `bytes` and adds them to `ticket`. Changes nothing on failure.
  absl::Status Take(std::int64_t bytes, memory::Ticket& ticket) {
    std::int64_t before = 0;
    if (!TakeWithin(used, max_bytes, bytes, before)) return ModelExceeded(max_bytes, before, bytes);
    std::variant<memory::Ticket, memory::LedgerRefusal> taken = total->Take(account, bytes);
    if (auto* const more = std::get_if<memory::Ticket>(&taken)) {
      ticket.Add(std::move(*more));
      return absl::OkStatus();
    }
    used.fetch_sub(bytes);
    return Exceeded(
        absl::StrCat("at most ", total->total(), " bytes in the tables of all models (max_total_model_bytes)"),
        std::get<memory::LedgerRefusal>(taken).used, bytes);
  }
};

ModelMemory::ModelMemory(std::int64_t max_model_bytes, std::int64_t max_total_bytes)
    : max_model_bytes_(max_model_bytes),
      total_(std::make_shared<memory::Ledger>(memory::Ledger::Options{.total = max_total_bytes, .shares = false})),
      account_(total_->AccountOf("models")) {}

bias::TableTicket ModelMemory::Version::NewTicket() const {
  // shared_ptr, because std::function copies its captures.
  auto ticket = std::make_shared<memory::Ticket>();
  return bias::TableTicket([counts = counts_, ticket = std::move(ticket)](std::int64_t bytes) {
    if (bytes >= 0) return counts->Take(bytes, *ticket);
    ticket->GiveBack(-bytes);
    return absl::OkStatus();
  });
}

ModelMemory::Version ModelMemory::NewVersion() const {
  Version version;
  version.counts_ = std::make_shared<Version::Counts>();
  version.counts_->max_bytes = max_model_bytes_;
  version.counts_->total = total_;
  version.counts_->account = account_;
  return version;
}

absl::Status ModelMemory::CheckModel(std::int64_t held, std::int64_t more) const {
  if (more <= max_model_bytes_ - held) return absl::OkStatus();
  return ModelExceeded(max_model_bytes_, held, more);
}

}  // namespace attnd::model
