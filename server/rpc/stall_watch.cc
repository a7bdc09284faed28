#include "server/rpc/stall_watch.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/support/alloc.h"

namespace attnd::server {
namespace {

constexpr absl::Duration kShortestLook = absl::Milliseconds(5);
constexpr absl::Duration kLongestLook = absl::Seconds(1);
// Counts as infinite, and is within the clock's range.
constexpr absl::Duration kYears = absl::Hours(24 * 365 * 100);
constexpr std::chrono::seconds kBetweenLines(1);

struct Free {
  void operator()(char* text) const { gpr_free(text); }
};

// A number for this thread, which spreads threads over the shards.
std::size_t ThisThread(std::atomic<std::size_t>& next) {
  thread_local const std::size_t number = next.fetch_add(1, std::memory_order_relaxed);
  return number;
}

}  // namespace

StallWatch::StallWatch(const StallLimit& limit, Counters& counters, Log log)
    : limit_(limit), watches_(limit.patience < kYears), counters_(counters), log_(std::move(log)) {
  if (watches_) thread_ = std::thread([this] { Run(); });
}

StallWatch::~StallWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

StallWatch::Clock::duration StallWatch::Allowed(std::int64_t bytes) const {
  const absl::Duration taken = absl::Seconds(static_cast<double>(bytes) / static_cast<double>(limit_.bytes_per_second));
  return absl::ToChronoNanoseconds(std::min(limit_.patience + taken, kYears));
}

void StallWatch::Begin(Transfer& transfer, grpc_call* call, std::int64_t bytes, bool is_read) {
  if (!watches_) return;
  transfer.call = call;
  transfer.is_read = is_read;
  transfer.bytes = bytes;
  transfer.begun = Clock::now();
  transfer.due = transfer.begun + Allowed(bytes);
  transfer.shard = ThisThread(next_shard_) % shards_.size();
  Shard& shard = shards_[transfer.shard];
  absl::MutexLock lock(&shard.mutex);
  transfer.watch = this;
  transfer.previous = &shard.first;
  transfer.next = shard.first.next;
  if (transfer.next != nullptr) transfer.next->previous = &transfer;
  shard.first.next = &transfer;
}

void StallWatch::End(Transfer& transfer) {
  if (!watches_) return;
  absl::MutexLock lock(&shards_[transfer.shard].mutex);
  if (transfer.watch != nullptr) Unlink(transfer);
}

void StallWatch::Unlink(Transfer& transfer) {
  transfer.previous->next = transfer.next;
  if (transfer.next != nullptr) transfer.next->previous = transfer.previous;
  transfer.previous = transfer.next = nullptr;
  transfer.watch = nullptr;
}

std::vector<StallWatch::Stalled> StallWatch::Take(absl::FunctionRef<bool(const Transfer&)> stalled) {
  std::vector<Stalled> taken;
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    for (Transfer* transfer = shard.first.next; transfer != nullptr;) {
      Transfer* const next = transfer->next;
      if (stalled(*transfer)) {
        taken.push_back({transfer->call, transfer->is_read, transfer->bytes});
        grpc_call_ref(transfer->call);  // its owner may end it as soon as the lock is released
        Unlink(*transfer);
      }
      transfer = next;
    }
  }
  return taken;
}

void StallWatch::EndReads(Clock::time_point then) {
  for (const Stalled& read : Take([&](const Transfer& one) { return one.is_read && one.begun < then; })) {
    grpc_call_cancel_with_status(read.call, GRPC_STATUS_UNAVAILABLE, "the server is stopping", nullptr);
    grpc_call_unref(read.call);
  }
}

void StallWatch::Cancel(const Stalled& stalled) {
  const std::string what = stalled.is_read
                               ? absl::StrCat("the request (", stalled.bytes, " bytes at most) did not arrive")
                               : absl::StrCat("the result (", stalled.bytes, " bytes) was not taken");
  const std::string why =
      absl::StrCat(what, " within ", absl::FormatDuration(limit_.patience), " and a second for each ",
                   limit_.bytes_per_second, " bytes (--stall_seconds, --min_rate)");
  (stalled.is_read ? counters_.stalled_reads : counters_.stalled_writes).fetch_add(1, std::memory_order_relaxed);
  ++unsaid_;
  if (const Clock::time_point now = Clock::now(); now >= next_line_) {
    const std::unique_ptr<char, Free> peer(grpc_call_get_peer(stalled.call));
    log_(absl::StrCat("a call of ", peer.get(), " is ended: ", why, " (", unsaid_, " times since this was said last)"));
    unsaid_ = 0;
    next_line_ = now + kBetweenLines;
  }
  grpc_call_cancel_with_status(stalled.call, GRPC_STATUS_DEADLINE_EXCEEDED, why.c_str(), nullptr);
  grpc_call_unref(stalled.call);
}

void StallWatch::Run() {
  const absl::Duration look = std::clamp(limit_.patience / 4, kShortestLook, kLongestLook);
  const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping), look)) return;
    }
    const Clock::time_point now = Clock::now();
    for (const Stalled& stalled : Take([&](const Transfer& one) { return one.due <= now; })) Cancel(stalled);
  }
}

}  // namespace attnd::server
