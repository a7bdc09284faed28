#include "schedule/intake_line.h"

#include <algorithm>

#include "absl/cleanup/cleanup.h"

namespace attnd::schedule {
namespace {

using Seconds = std::chrono::duration<double>;

// Share of the time left at arrival within which an entry must be done with by the estimate: its answer takes time too.
constexpr double kUsableWait = 0.75;
// Share of that time: an entry is not refused for a shorter wait.
constexpr double kLittle = 0.05;

// An entry is late if, when it could begin, it has less left than this share of the time that entries take.
constexpr double kLeastTime = 0.5;

// Share of an average that remains when a value is added.
constexpr double kKept = 0.9;

// The usual time is one that four entries in five do not exceed; a sender that takes four times as long is slow.
constexpr double kMost = 0.8, kMuchLonger = 4;
// Relative step of the usual time per entry.
constexpr double kStep = 0.1;

// Seconds: bounds of TooLong::come_back.
constexpr double kSoonest = 0.01, kLatest = 30;

}  // namespace

bool IntakeEntry::HasUsedLess::operator()(const Caller* a, const Caller* b) const {
  return a->used != b->used ? a->used < b->used : a->turn < b->turn;
}

IntakeLine::Joined IntakeLine::Join(IntakeEntry& entry, const void* caller, Clock::time_point deadline,
                                    Clock::time_point now, TooLong& too_long) {
  entry.sequence_ = next_sequence_++;
  entry.has_deadline_ = deadline != Clock::time_point::max();
  entry.due_ = deadline;
  if (!entry.has_deadline_ && options_.max_wait < Clock::time_point::max() - now) entry.due_ = now + options_.max_wait;
  Caller& of = CallerOf(caller);
  const absl::Cleanup forget = [this, &of] { ForgetIfIdle(of); };
  entry.of_ = &of;
  if (of.waiting.empty()) of.used = std::max(of.used, clock_);
  if (receiving_ < options_.places && of.inside < options_.per_caller && of.waiting.empty()) {
    Begin(entry, now);
    return Joined::kBegins;
  }
  if (TooLongFor(entry, now, too_long)) return Joined::kRefused;
  of.waiting.insert(&entry);
  if (of.waiting.size() == 1) ++lines_;
  entry.place_ = IntakeEntry::Place::kWaiting;
  if (waiting_++ == 0) last_begun_ = now;
  Offer(of);
  return Joined::kWaits;
}

IntakeLine::Caller& IntakeLine::CallerOf(const void* name) {
  if (const auto found = callers_.find(name); found != callers_.end()) return found->second;
  // Made completely before it is inserted: both steps may fail.
  std::map<const void*, Caller> made;
  Caller& caller = made.try_emplace(name).first->second;
  IntakeEntry::Callers place;
  place.insert(&caller);
  caller.name = name;
  caller.node = place.extract(place.begin());
  callers_.insert(made.extract(made.begin()));
  return caller;
}

bool IntakeLine::TooLongFor(const IntakeEntry& entry, Clock::time_point now, TooLong& too_long) const {
  const double per_second = rate_.per_second();
  if (per_second == 0) return false;
  if (!entry.has_deadline_ && options_.max_wait == Clock::duration::max()) return false;
  const double time =
      entry.has_deadline_ ? Seconds(entry.due_ - now).count() * kUsableWait : Seconds(options_.max_wait).count();
  const double wait = (Before(entry, time * per_second) + 1) / per_second;
  const double after = entry.has_deadline_ ? inside_seconds_ : 0;
  if (wait < kLittle * time || wait + after <= time) return false;
  too_long.estimate = wait + after;
  too_long.come_back = std::clamp(too_long.estimate - time, kSoonest, kLatest);
  return true;
}

// How many waiting entries may begin before an entry that does not wait yet; stops counting beyond `enough`.
double IntakeLine::Before(const IntakeEntry& entry, double enough) const {
  const auto& waiting = entry.of_->waiting;
  double own = 0;
  if (!waiting.empty() && (*waiting.rbegin())->due_ <= entry.due_) {
    own = static_cast<double>(waiting.size());
  } else {
    for (auto at = waiting.begin(); at != waiting.end() && own <= enough && (*at)->due_ <= entry.due_; ++at) ++own;
  }
  // Each other caller gets at most one entry more than this entry's caller.
  const std::size_t others = lines_ - (waiting.empty() ? 0 : 1);
  return own + std::min(static_cast<double>(waiting_ - waiting.size()), static_cast<double>(others) * (own + 1));
}

void IntakeLine::Begin(IntakeEntry& entry, Clock::time_point now) {
  entry.place_ = IntakeEntry::Place::kReceiving;
  entry.began_ = now;
  entry.unmeasured_ = true;
  entry.previous_ = newest_;
  entry.next_ = nullptr;
  (newest_ == nullptr ? oldest_ : newest_->next_) = &entry;
  newest_ = &entry;
  ++receiving_;
  ++entry.of_->inside;
  clock_ = std::max(clock_, entry.of_->used);
}

IntakeEntry* IntakeLine::Take(Clock::time_point now, std::optional<TooLong>& late) {
  late.reset();
  if (receiving_ >= options_.places || offered_.empty()) return nullptr;
  Caller& caller = **offered_.begin();
  Withhold(caller);
  IntakeEntry& entry = **caller.waiting.begin();
  caller.waiting.erase(caller.waiting.begin());
  --waiting_;
  if (caller.waiting.empty()) --lines_;
  if (entry.has_deadline_ && Seconds(entry.due_ - now).count() < inside_seconds_ * kLeastTime) {
    late = TooLong{inside_seconds_, std::clamp(inside_seconds_, kSoonest, kLatest)};
    entry.place_ = IntakeEntry::Place::kOutside;
  } else {
    Begin(entry, now);
    rate_.Add(1, Seconds(now - last_begun_).count());
    last_begun_ = now;
  }
  Offer(caller);
  ForgetIfIdle(caller);
  return &entry;
}

void IntakeLine::Received(IntakeEntry& entry, Clock::time_point now) {
  Measure(entry, now);
  if (!Receives(entry)) return;
  EndReceiving(entry, now);
  entry.place_ = IntakeEntry::Place::kInside;
}

bool IntakeLine::Leave(IntakeEntry& entry, Clock::time_point now) {
  entry.unmeasured_ = false;
  if (entry.place_ == IntakeEntry::Place::kOutside) return false;
  Caller& caller = *entry.of_;
  const bool waited = entry.place_ == IntakeEntry::Place::kWaiting;
  if (waited) {
    caller.waiting.erase(&entry);
    --waiting_;
    if (caller.waiting.empty()) {
      --lines_;
      Withhold(caller);
    }
  } else {
    if (Receives(entry)) EndReceiving(entry, now);
    --caller.inside;
    inside_seconds_ = inside_seconds_ * kKept + Seconds(now - entry.began_).count() * (1 - kKept);
    Offer(caller);
  }
  entry.place_ = IntakeEntry::Place::kOutside;
  ForgetIfIdle(caller);
  return waited;
}

Clock::time_point IntakeLine::Expire(Clock::time_point now) {
  const Clock::duration hold = Hold();
  while (oldest_ != nullptr) {
    IntakeEntry& entry = *oldest_;
    if (now - entry.began_ < hold) return entry.began_ + hold;
    EndReceiving(entry, now);
    entry.place_ = IntakeEntry::Place::kOutside;
    --entry.of_->inside;
    Offer(*entry.of_);
    ForgetIfIdle(*entry.of_);
  }
  return Clock::time_point::max();
}

void IntakeLine::EndReceiving(IntakeEntry& entry, Clock::time_point now) {
  (entry.previous_ == nullptr ? oldest_ : entry.previous_->next_) = entry.next_;
  (entry.next_ == nullptr ? newest_ : entry.next_->previous_) = entry.previous_;
  --receiving_;
  Caller& caller = *entry.of_;
  Withhold(caller);
  const double seconds = Seconds(now - entry.began_).count();
  caller.used += seconds;
  // The clock advances by each caller's share, so that callers that come one after the other do not pass for ever those
  // that have held places.
  clock_ += seconds / static_cast<double>(std::max<std::size_t>(1, lines_ + (caller.waiting.empty() ? 1 : 0)));
  Offer(caller);
}

// Records how long an entry took to receive: a running quantile (Robbins and Monro, 1951), changed by ratios, so that
// slow senders count no more than others, however slow. A time far beyond the longest hold means that the sender had
// nothing to send; it is ignored because it says nothing about others.
void IntakeLine::Measure(IntakeEntry& entry, Clock::time_point now) {
  if (!entry.unmeasured_) return;
  entry.unmeasured_ = false;
  const Clock::duration took = now - entry.began_;
  if (took > 2 * options_.most_hold) return;
  const double seconds = Seconds(took).count();
  if (usual_seconds_ == 0) {
    usual_seconds_ = seconds;
  } else if (seconds > usual_seconds_) {
    usual_seconds_ = std::min(seconds, usual_seconds_ * (1 + kStep * kMost));
  } else {
    usual_seconds_ = std::max(seconds, usual_seconds_ * (1 - kStep * (1 - kMost)));
  }
}

Clock::duration IntakeLine::Hold() const {
  if (usual_seconds_ == 0) return options_.most_hold;
  const auto hold = std::chrono::duration_cast<Clock::duration>(Seconds(kMuchLonger * usual_seconds_));
  return std::clamp(hold, options_.least_hold, options_.most_hold);
}

// If an entry of the caller may begin once there is a place.
void IntakeLine::Offer(Caller& caller) {
  if (caller.node.empty() || caller.waiting.empty() || caller.inside >= options_.per_caller) return;
  caller.turn = next_turn_++;
  offered_.insert(std::move(caller.node));
}

void IntakeLine::Withhold(Caller& caller) {
  if (caller.node.empty()) caller.node = offered_.extract(&caller);
}

void IntakeLine::ForgetIfIdle(Caller& caller) {
  if (!caller.waiting.empty() || caller.inside > 0) return;
  const void* const name = caller.name;
  callers_.erase(name);
}

}  // namespace attnd::schedule
