#include "memory/ledger.h"

#include <algorithm>

namespace attnd::memory {

void Account::GiveBack(std::int64_t bytes) {
  // In this order, a concurrent Take may see too many bytes held for a moment, never too few.
  totals_->used.fetch_sub(bytes, std::memory_order_relaxed);
  held_.fetch_sub(bytes, std::memory_order_relaxed);
  totals_->given_back.fetch_add(bytes, std::memory_order_relaxed);
}

void Ticket::GiveBack(std::int64_t bytes) {
  if (bytes == 0) return;
  bytes_ -= bytes;
  account_->GiveBack(bytes);
}

Ticket Ticket::Split(std::int64_t bytes) {
  bytes_ -= bytes;
  return Ticket(account_, bytes);
}

void Ticket::Add(Ticket other) {
  if (account_ == nullptr) account_ = std::move(other.account_);
  bytes_ += std::exchange(other.bytes_, 0);
}

Ledger::Ledger(const Options& options)
    : options_(options), most_for_one_(options.shares ? options.total / 2 : options.total) {}

std::shared_ptr<Account> Ledger::AccountOf(absl::string_view peer) {
  const std::string_view name(peer.data(), peer.size());
  const absl::MutexLock lock(&mutex_);
  if (const auto found = accounts_.find(name); found != accounts_.end()) return found->second;
  if (accounts_.size() >= forget_at_) ForgetUnused();
  return accounts_.emplace(name, std::shared_ptr<Account>(new Account(totals_))).first->second;
}

void Ledger::ForgetUnused() {
  // References are copied only from the map, under its lock, or from another reference. So a use count of 1 stays 1.
  std::erase_if(accounts_, [](const Accounts::value_type& entry) { return entry.second.use_count() == 1; });
  forget_at_ = std::max<std::size_t>(64, 2 * accounts_.size());
}

std::variant<Ticket, LedgerRefusal> Ledger::Take(std::shared_ptr<Account> account, std::int64_t bytes,
                                                 std::int64_t beside) {
  if (beside > most_for_one_ || bytes > most_for_one_ - beside) return RefuseForGood(*account, bytes + beside);
  // Adds to the peer first: concurrent takes for the same peer see each other, so together they stay within its share.
  // A take that is then refused may cause another of the same peer to be refused, but none of another peer.
  const std::int64_t held = account->held_.fetch_add(bytes, std::memory_order_relaxed);
  std::int64_t used = totals_->used.load(std::memory_order_relaxed);
  do {
    // Bytes that other threads are taking for this peer are in `held` and may not be in `used` yet.
    const std::int64_t free_after = options_.total - std::max(used, held) - bytes;
    if (free_after < 0 || (options_.shares && held > free_after - bytes)) {
      account->held_.fetch_sub(bytes, std::memory_order_relaxed);
      return Refuse(*account, bytes, used);
    }
  } while (!totals_->used.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  Raise(totals_->peak, used + bytes);
  return Ticket(std::move(account), bytes);
}

LedgerRefusal Ledger::RefuseForGood(const Account& account, std::int64_t bytes) {
  refused_as_never_fitting_.fetch_add(1, std::memory_order_relaxed);
  LedgerRefusal refusal;
  refusal.reason = LedgerRefusal::Reason::kNever;
  refusal.asked = bytes;
  refusal.held = account.held_bytes();
  refusal.used = used_bytes();
  refusal.most = most_for_one_;
  return refusal;
}

LedgerRefusal Ledger::Refuse(const Account& account, std::int64_t bytes, std::int64_t used) {
  using Reason = LedgerRefusal::Reason;
  LedgerRefusal refusal;
  refusal.asked = bytes;
  refusal.held = std::min(account.held_bytes(), used);  // other threads may be taking for it
  refusal.used = used;
  const std::int64_t free = options_.total - used;
  const bool total = bytes > free;
  (total ? refused_by_total_ : refused_by_share_).fetch_add(1, std::memory_order_relaxed);
  refusal.reason = total ? Reason::kTotal : Reason::kShare;
  // Each byte that the peer takes adds one to what it holds and removes one from what is free.
  const std::int64_t may_take = std::max<std::int64_t>(0, (free - refusal.held) / 2);
  refusal.most = total ? options_.total : refusal.held + may_take;
  const std::int64_t missing = bytes - (options_.shares ? may_take : free);
  refusal.come_back = pace_.Until(missing, totals_->given_back.load(std::memory_order_relaxed), Pace::Clock::now());
  return refusal;
}

void Ledger::Raise(std::atomic<std::int64_t>& peak, std::int64_t to) {
  std::int64_t seen = peak.load(std::memory_order_relaxed);
  while (seen < to && !peak.compare_exchange_weak(seen, to, std::memory_order_relaxed)) {
  }
}

std::int64_t Ledger::TakePeakBytes() {
  const std::int64_t peak = totals_->peak.exchange(0, std::memory_order_relaxed);
  Raise(highest_, peak);
  Raise(totals_->peak, used_bytes());
  return peak;
}

Ledger::Usage Ledger::GetUsage() const {
  Usage usage;
  usage.total = options_.total;
  usage.most_for_one = most_for_one_;
  usage.used = used_bytes();
  usage.peak = std::max(highest_.load(std::memory_order_relaxed), totals_->peak.load(std::memory_order_relaxed));
  usage.refused_by_total = refused_by_total_.load(std::memory_order_relaxed);
  usage.refused_by_share = refused_by_share_.load(std::memory_order_relaxed);
  usage.refused_as_never_fitting = refused_as_never_fitting_.load(std::memory_order_relaxed);
  const absl::MutexLock lock(&mutex_);
  for (const auto& [name, account] : accounts_) {
    const std::int64_t held = account->held_bytes();
    if (held > 0) ++usage.peers;
    usage.largest_peer = std::max(usage.largest_peer, held);
  }
  return usage;
}

}  // namespace attnd::memory
