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
// Longer than anybody waits, and within the clock's range.
constexpr absl::Duration kYears = absl::Hours(24 * 365 * 100);
constexpr std::chrono::seconds kBetweenLines(1);

struct Free {
  void operator()(char* text) const { gpr_free(text); }
};

// Spreads threads over the shards.
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

void StallWatch::Begin(Write& write, grpc_call* call, std::int64_t bytes) {
  if (!watches_) return;
  write.call = call;
  write.bytes = bytes;
  write.due = Clock::now() + Allowed(bytes);
  write.shard = ThisThread(next_shard_) % shards_.size();
  Shard& shard = shards_[write.shard];
  absl::MutexLock lock(&shard.mutex);
  write.watch = this;
  write.previous = &shard.first;
  write.next = shard.first.next;
  if (write.next != nullptr) write.next->previous = &write;
  shard.first.next = &write;
}

void StallWatch::End(Write& write) {
  if (!watches_) return;
  absl::MutexLock lock(&shards_[write.shard].mutex);
  if (write.watch != nullptr) Unlink(write);
}

void StallWatch::Unlink(Write& write) {
  write.previous->next = write.next;
  if (write.next != nullptr) write.next->previous = write.previous;
  write.previous = write.next = nullptr;
  write.watch = nullptr;
}

std::vector<StallWatch::Stalled> StallWatch::TakeStalled(Clock::time_point now) {
  std::vector<Stalled> stalled;
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    for (Write* write = shard.first.next; write != nullptr;) {
      Write* const next = write->next;
      if (write->due <= now) {
        grpc_call_ref(write->call);  // its owner may end it as soon as the lock is free
        stalled.push_back({write->call, write->bytes});
        Unlink(*write);
      }
      write = next;
    }
  }
  return stalled;
}

void StallWatch::Cancel(const Stalled& stalled) {
  const std::string why = absl::StrCat("the result (", stalled.bytes, " bytes) was not taken within ",
                                       absl::FormatDuration(limit_.patience), " and a second for each ",
                                       limit_.bytes_per_second, " bytes (--stall_seconds, --min_rate)");
  counters_.stalled_writes.fetch_add(1, std::memory_order_relaxed);
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
    for (const Stalled& stalled : TakeStalled(Clock::now())) Cancel(stalled);
  }
}

}  // namespace attnd::server
