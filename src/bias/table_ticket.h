// A table's reservation of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"

namespace attnd::bias {

// Bytes taken from an account, given back on destruction. Without an account, it only counts and has no limit. Movable.
// Not thread-safe; the account is called on the thread that destroys the ticket.
class TableTicket {
 public:
  // Takes `bytes` if positive; gives back -`bytes` if negative, which never fails.
  using Account = std::function<absl::Status(std::int64_t bytes)>;

  TableTicket() = default;
  explicit TableTicket(Account account) : account_(std::move(account)) {}
  TableTicket(TableTicket&& other) noexcept
      : account_(std::exchange(other.account_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  TableTicket& operator=(TableTicket&& other) noexcept {
    std::swap(account_, other.account_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~TableTicket() {
    if (account_ && bytes_ > 0) account_(-bytes_).IgnoreError();
  }

  // Takes bytes until the ticket holds `bytes`; does nothing if it already does. Errors: the account's; the ticket is
  // then unchanged.
  absl::Status GrowTo(std::int64_t bytes) {
    if (bytes <= bytes_) return absl::OkStatus();
    if (account_) {
      if (absl::Status taken = account_(bytes - bytes_); !taken.ok()) return taken;
    }
    bytes_ = bytes;
    return absl::OkStatus();
  }

  std::int64_t bytes() const { return bytes_; }
  bool has_account() const { return static_cast<bool>(account_); }

 private:
  Account account_;
  std::int64_t bytes_ = 0;
};

}  // namespace attnd::bias
