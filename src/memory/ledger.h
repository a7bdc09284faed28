// The ledger: limits the bytes that requests, their results and intermediate data hold together. One total, and one
// account per peer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "memory/pace.h"

namespace attnd::memory {

class Ledger;

// The bytes that one peer holds. Made by a Ledger, which it may outlive.
class Account {
  struct Totals;

 public:
  // Bytes that the peer's tickets hold now.
  std::int64_t held_bytes() const { return held_.load(std::memory_order_relaxed); }

 private:
  friend class Ledger;
  friend class Ticket;

  // Shared by all accounts of a ledger.
  struct alignas(64) Totals {
    std::atomic<std::int64_t> used{0};
    std::atomic<std::int64_t> peak{0};
    std::atomic<std::int64_t> given_back{0};  // since the start
  };

  explicit Account(std::shared_ptr<Totals> totals) : totals_(std::move(totals)) {}
  void GiveBack(std::int64_t bytes);

  alignas(64) std::atomic<std::int64_t> held_{0};
  const std::shared_ptr<Totals> totals_;
};

// A reservation: bytes taken from a ledger for one peer, given back on destruction. Empty by default. May outlive its
// ledger. Thread-compatible.
class [[nodiscard]] Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept : account_(std::move(other.account_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Ticket& operator=(Ticket&& other) noexcept {
    if (this == &other) return *this;
    GiveBack(bytes_);
    account_ = std::move(other.account_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }
  ~Ticket() { GiveBack(bytes_); }

  std::int64_t bytes() const { return bytes_; }

  // Gives back `bytes` of the ticket's bytes: 0 to bytes().
  void GiveBack(std::int64_t bytes);
  // Moves `bytes`, 0 to bytes(), into a ticket of their own. They stay reserved throughout.
  Ticket Split(std::int64_t bytes);
  // Takes over the bytes of `other`, which is empty or of the same account.
  void Add(Ticket other);

 private:
  friend class Ledger;
  Ticket(std::shared_ptr<Account> account, std::int64_t bytes) : account_(std::move(account)), bytes_(bytes) {}
  std::shared_ptr<Account> account_;
  std::int64_t bytes_ = 0;
};

// Why bytes were refused.
struct LedgerRefusal {
  enum class Reason : std::uint8_t {
    kNever,  // more than one peer can ever have
    kTotal,  // more than is free
    kShare,  // the peer would hold more than what stays free
  };
  Reason reason = Reason::kNever;
  std::int64_t asked = 0;  // with kNever, includes what the same request holds already
  std::int64_t held = 0;   // by the peer
  std::int64_t used = 0;   // by all
  // The limit that was exceeded: the most one peer can ever hold, the total, or the most this peer may hold now.
  std::int64_t most = 0;
  // Estimated time until that much is free, from the recent rate at which bytes were given back; 0 with kNever.
  std::chrono::milliseconds come_back{0};
};

// After a take, a peer may hold at most as much as is still free: half of the total if it is alone, less if others hold
// bytes. So the peer that holds most is refused first, and the first peer leaves room for later ones: while it holds
// its half, the next may take a quarter. This is a dynamic threshold with alpha = 1, as switches use to share their
// buffers.
//
// Thread-safe. Take and Ticket's destructor are a handful of atomic operations (`attnd_bench ledger`).
class Ledger {
 public:
  struct Options {
    std::int64_t total = 0;  // bytes, >= 0
    bool shares = true;      // false: the total is the only bound
  };
  // What is held now, and what was refused since the start.
  struct Usage {
    std::int64_t total = 0;
    std::int64_t most_for_one = 0;  // the most that one peer can hold
    std::int64_t used = 0;
    std::int64_t peak = 0;   // the most that was held at once
    std::int64_t peers = 0;  // peers that hold something
    std::int64_t largest_peer = 0;
    std::int64_t refused_by_total = 0;
    std::int64_t refused_by_share = 0;
    std::int64_t refused_as_never_fitting = 0;
  };

  explicit Ledger(const Options& options);
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // The account of the peer with this name. It may be forgotten once no pointer and no ticket refers to it.
  std::shared_ptr<Account> AccountOf(absl::string_view peer) ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes all of `bytes` >= 0 for `account`, which is of this ledger, or nothing. `beside`: the bytes that the same
  // request holds already; if both together can never fit, the refusal is kNever.
  std::variant<Ticket, LedgerRefusal> Take(std::shared_ptr<Account> account, std::int64_t bytes,
                                           std::int64_t beside = 0);

  std::int64_t total() const { return options_.total; }
  bool shares() const { return options_.shares; }
  // The most that one peer can hold: half of the total, or all of it without shares.
  std::int64_t most_for_one() const { return most_for_one_; }

  // Bytes that tickets hold now.
  std::int64_t used_bytes() const { return totals_->used.load(std::memory_order_relaxed); }

  // The most bytes held at once since the last call, or since the start. Bytes that are held now also count for the
  // next call. For one caller only.
  std::int64_t TakePeakBytes();

  // Visits every account: for reports, not for every call.
  Usage GetUsage() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Accounts = std::unordered_map<std::string, std::shared_ptr<Account>, Hash, std::equal_to<>>;

  static void Raise(std::atomic<std::int64_t>& peak, std::int64_t to);
  LedgerRefusal Refuse(const Account& account, std::int64_t bytes, std::int64_t used);
  LedgerRefusal RefuseForGood(const Account& account, std::int64_t bytes);
  void ForgetUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::int64_t most_for_one_;
  const std::shared_ptr<Account::Totals> totals_ = std::make_shared<Account::Totals>();  // shared with the accounts
  std::atomic<std::int64_t> highest_{0};  // the highest peak that TakePeakBytes has returned
  std::atomic<std::int64_t> refused_by_total_{0};
  std::atomic<std::int64_t> refused_by_share_{0};
  std::atomic<std::int64_t> refused_as_never_fitting_{0};
  Pace pace_;
  mutable absl::Mutex mutex_;
  Accounts accounts_ ABSL_GUARDED_BY(mutex_);
  std::size_t forget_at_ ABSL_GUARDED_BY(mutex_) = 64;  // accounts
};

}  // namespace attnd::memory
