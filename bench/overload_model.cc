#include "overload_model.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "memory/ledger.h"
#include "schedule/intake_line.h"
#include "schedule/turns.h"

namespace attnd::bench {
namespace {

using schedule::Clock;
using schedule::IntakeLine;
using Seconds = std::chrono::duration<double>;

enum class Kind : std::uint8_t { kHonest, kGreedy, kSlow, kSilent, kDeaf, kDying };

Clock::duration Of(double seconds) { return std::chrono::duration_cast<Clock::duration>(Seconds(seconds)); }

struct Peer {
  Kind kind = Kind::kHonest;
  std::shared_ptr<memory::Account> account;
  double calls_per_second = 0;
  std::int64_t calls = 0, answered = 0;
};

enum class Stage : std::uint8_t { kLine, kReceiving, kArrived, kQueued, kComputed, kSent };

// One call, from its headers to its end.
struct Call {
  struct Entry : schedule::IntakeEntry {
    Call* call = nullptr;
  };
  struct Work : schedule::Turn {
    Call* call = nullptr;
  };
  std::uint64_t id = 0;
  Peer* peer = nullptr;
  Clock::time_point deadline;
  double cost = 0;  // core time in seconds
  Stage stage = Stage::kLine;
  Entry entry;
  Work work;
  double whole_at = 0;  // value of `received_` at which its message is complete
  bool joined = false;  // in turns_
  memory::Ticket ticket;
};

class Model {
 public:
  explicit Model(const OverloadOptions& options)
      : options_(options),
        random_(options.seed),
        ledger_({.total = options.total_bytes, .shares = true}),
        line_({.places = Places(), .per_caller = 2 * Places()}),
        turns_(options.cores * kTurnSeconds) {}

  OverloadResult Run() {
    const auto begun = std::chrono::steady_clock::now();
    MakePeers();
    After(0.01, [this] { Look(); });
    while (!events_.empty() && result_.wrong.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      event.run();
      Check();
      if (++count_ == options_.events) Stop();
    }
    Conclude();
    result_.us_per_event =
        Seconds(std::chrono::steady_clock::now() - begun).count() * 1e6 / static_cast<double>(count_);
    return std::move(result_);
  }

 private:
  static constexpr double kTurnSeconds = 0.015;
  static constexpr double kUsableTime = 0.8;

  struct Event {
    Clock::time_point time;
    std::uint64_t sequence = 0;
    std::function<void()> run;
    bool operator<(const Event& other) const {  // the earliest is the largest
      return time != other.time ? time > other.time : sequence > other.sequence;
    }
  };

  int Places() const { return options_.places > 0 ? options_.places : schedule::DefaultPlaces(options_.cores); }
  double Exponential(double mean) { return std::exponential_distribution<>(1 / mean)(random_); }
  void After(double seconds, std::function<void()> run) {
    events_.push({now_ + Of(seconds), ++sequence_, std::move(run)});
  }
  void Wrong(const std::string& what) {
    if (result_.wrong.empty()) result_.wrong = absl::StrCat("event ", count_, ": ", what);
  }

  // Calls per second that the slower of receiving and computing allows.
  double Capacity() const { return options_.cores / std::max(options_.compute_seconds, options_.message_seconds); }

  void MakePeers() {
    const int callers = options_.honest + options_.slow + options_.silent + options_.deaf + options_.dying;
    const double each = options_.load * Capacity() / (callers + 10 * options_.greedy);
    const auto add = [&](Kind kind, int count) {
      for (int i = 0; i < count; ++i) {
        Peer& peer = peers_.emplace_back();
        peer.kind = kind;
        peer.account = ledger_.AccountOf(absl::StrCat("peer ", peers_.size()));
        peer.calls_per_second = kind == Kind::kGreedy ? 10 * each : each;
        NextCall(peer);
        if (kind == Kind::kDying) After(Exponential(1), [this, &peer] { Die(peer); });
      }
    };
    add(Kind::kHonest, options_.honest);
    add(Kind::kGreedy, options_.greedy);
    add(Kind::kSlow, options_.slow);
    add(Kind::kSilent, options_.silent);
    add(Kind::kDeaf, options_.deaf);
    add(Kind::kDying, options_.dying);
  }

  void NextCall(Peer& peer) {
    After(Exponential(1 / peer.calls_per_second), [this, &peer] {
      if (stopped_) return;
      Begin(peer);
      NextCall(peer);
    });
  }

  // The call's headers arrive.
  void Begin(Peer& peer) {
    auto owned = std::make_unique<Call>();
    Call& call = *owned;
    call.id = ++next_id_;
    call.peer = &peer;
    call.deadline = now_ + Of(options_.deadline_seconds);
    call.cost = Exponential(options_.compute_seconds);
    call.entry.call = call.work.call = &call;
    ++result_.calls;
    ++peer.calls;
    calls_.emplace(call.id, std::move(owned));
    schedule::TooLong too_long;
    switch (line_.Join(call.entry, peer.account.get(), call.deadline, now_, too_long)) {
      case IntakeLine::Joined::kBegins:
        Receive(call);
        break;
      case IntakeLine::Joined::kRefused:
        return End(call, result_.refused_at_headers);
      case IntakeLine::Joined::kWaits:
        break;
    }
    After(options_.deadline_seconds, [this, id = call.id] {
      Call* const late = Find(id);
      if (late == nullptr || late->stage == Stage::kSent) return;
      End(*late, late->stage == Stage::kComputed ? result_.cancelled : result_.expired);
      LetIn();
    });
  }

  Call* Find(std::uint64_t id) {
    const auto found = calls_.find(id);
    return found == calls_.end() ? nullptr : found->second.get();
  }

  void Receive(Call& call) {
    call.stage = Stage::kReceiving;
    if (call.peer->kind == Kind::kSilent) return;
    if (call.peer->kind == Kind::kSlow) {
      return After(100 * options_.message_seconds, [this, id = call.id] {
        if (Call* const arrived = Find(id); arrived != nullptr && arrived->stage == Stage::kReceiving) Arrive(*arrived);
      });
    }
    PassReceiving();
    call.whole_at = received_ + options_.message_seconds;
    arriving_.emplace(call.whole_at, call.id);
    AwaitNextArrival();
  }

  // Messages that are received at the same time share the cores, each using at most one (processor sharing).
  // `received_` is the core time in seconds that each of them has got since the start.
  double ReceivingRate() const {
    const auto count = static_cast<double>(arriving_.size());
    return count <= options_.cores ? 1 : options_.cores / count;
  }
  void PassReceiving() {
    received_ += Seconds(now_ - received_at_).count() * ReceivingRate();
    received_at_ = now_;
  }
  void AwaitNextArrival() {
    if (arriving_.empty()) return;
    const double left = std::max(0.0, arriving_.begin()->first - received_) / ReceivingRate();
    After(left + 1e-9, [this, turn = ++arrival_turn_] {
      if (turn != arrival_turn_) return;
      PassReceiving();
      while (!arriving_.empty() && arriving_.begin()->first <= received_ + 1e-9) {
        Call& call = *Find(arriving_.begin()->second);
        arriving_.erase(arriving_.begin());
        Arrive(call);
      }
      AwaitNextArrival();
    });
  }

  // The message is complete.
  void Arrive(Call& call) {
    call.stage = Stage::kArrived;
    line_.Received(call.entry, now_);
    auto taken = ledger_.Take(call.peer->account, 2 * options_.message_bytes);
    if (auto* const ticket = std::get_if<memory::Ticket>(&taken)) {
      call.ticket = std::move(*ticket);
    } else {
      End(call, result_.refused_later);
      return LetIn();
    }
    call.work.caller = call.peer->account.get();
    call.work.due = call.deadline;
    call.work.sequence = call.id;
    call.work.left = call.cost;
    const double time = Seconds(call.deadline - now_).count() * kUsableTime;
    const double before = turns_.CostBefore(call.work, call.deadline, time * options_.cores) + computed_seconds_;
    if (before > 0.05 * time * options_.cores && before + call.cost > time * options_.cores) {
      End(call, result_.refused_later);
      return LetIn();
    }
    turns_.Join(&call.work);
    call.joined = true;
    turns_.Wait(&call.work);
    call.stage = Stage::kQueued;
    Compute();
    LetIn();
  }

  void Compute() {
    while (computing_ < options_.cores && !turns_.empty()) {
      Call& call = *static_cast<Call::Work*>(turns_.Take())->call;
      call.stage = Stage::kComputed;
      ++computing_;
      computed_seconds_ += call.cost;
      turns_.Charge(&call.work, call.cost);
      After(call.cost, [this, id = call.id, cost = call.cost] {
        --computing_;
        computed_seconds_ = computing_ == 0 ? 0 : computed_seconds_ - cost;
        if (Call* const done = Find(id); done != nullptr) Answer(*done);
        Compute();
        LetIn();
      });
    }
  }

  void Answer(Call& call) {
    LeaveQueues(call);
    if (now_ > call.deadline) Wrong("an answer after its deadline");
    call.stage = Stage::kSent;
    if (call.peer->kind == Kind::kDeaf) {
      After(options_.stall_seconds, [this, id = call.id] {
        if (Call* const stalled = Find(id); stalled != nullptr) End(*stalled, result_.stalled);
      });
      return;
    }
    ++call.peer->answered;
    End(call, result_.answered);
  }

  void LeaveQueues(Call& call) {
    if (call.stage == Stage::kReceiving && arriving_.count({call.whole_at, call.id}) > 0) {
      PassReceiving();
      arriving_.erase({call.whole_at, call.id});
      AwaitNextArrival();
    }
    line_.Leave(call.entry, now_);
    if (call.stage == Stage::kQueued) turns_.Remove(&call.work);
    if (std::exchange(call.joined, false)) turns_.Leave(&call.work);
  }

  void End(Call& call, std::int64_t& how) {
    ++how;
    LeaveQueues(call);
    calls_.erase(call.id);
  }

  void LetIn() {
    std::optional<schedule::TooLong> late;
    while (schedule::IntakeEntry* const entry = line_.Take(now_, late)) {
      Call& call = *static_cast<Call::Entry*>(entry)->call;
      if (late.has_value()) {
        End(call, result_.refused_at_headers);
      } else {
        Receive(call);
      }
    }
  }

  // As the intake's thread does.
  void Look() {
    line_.Expire(now_);
    LetIn();
    if (!stopped_ || !calls_.empty()) After(0.01, [this] { Look(); });
  }

  void Die(Peer& peer) {
    std::vector<Call*> its;
    for (const auto& [id, call] : calls_) {
      if (call->peer == &peer) its.push_back(call.get());
    }
    for (Call* const call : its) End(*call, result_.cancelled);
    LetIn();
    if (!stopped_) After(Exponential(1), [this, &peer] { Die(peer); });
  }

  void Stop() {
    stopped_ = true;
    stop_ = now_;
  }

  void Check() {
    if (line_.receiving() > Places()) Wrong("more are received than there are places");
    if (ledger_.used_bytes() < 0 || ledger_.used_bytes() > options_.total_bytes) Wrong("bytes out of bounds");
    if (computing_ > options_.cores) Wrong("more are computed than there are cores");
    if (computing_ < options_.cores && !turns_.empty()) Wrong("a core is idle beside works that wait");
    if (!calls_.empty() || !stopped_) return;
    if (result_.stop_seconds == 0) result_.stop_seconds = Seconds(now_ - stop_).count();
  }

  void Conclude() {
    result_.seconds = Seconds(stop_ - Clock::time_point()).count();
    result_.goodput = static_cast<double>(result_.answered) / result_.seconds / Capacity();
    if (!result_.wrong.empty()) return;
    const std::int64_t ended = result_.answered + result_.refused_at_headers + result_.refused_later + result_.expired +
                               result_.cancelled + result_.stalled;
    if (ended != result_.calls) Wrong(absl::StrCat(result_.calls, " calls, and ", ended, " ends"));
    if (ledger_.used_bytes() != 0) Wrong(absl::StrCat(ledger_.used_bytes(), " bytes are held by nobody"));
    if (line_.waiting() != 0 || line_.receiving() != 0) Wrong("places are held by nobody");
    if (!turns_.empty() || computing_ != 0) Wrong("works are left");
    std::int64_t calls = 0, answered = 0;
    result_.least_answered = 1;
    for (const Peer& peer : peers_) {
      if (peer.kind != Kind::kHonest) continue;
      calls += peer.calls;
      answered += peer.answered;
      if (peer.calls < 20) continue;  // too few to judge
      result_.least_answered =
          std::min(result_.least_answered, static_cast<double>(peer.answered) / static_cast<double>(peer.calls));
    }
    result_.honest_answered = static_cast<double>(answered) / static_cast<double>(std::max<std::int64_t>(calls, 1));
  }

  const OverloadOptions options_;
  std::mt19937_64 random_;
  Clock::time_point now_;
  memory::Ledger ledger_;
  IntakeLine line_;
  schedule::Turns turns_;
  std::deque<Peer> peers_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Call>> calls_;
  std::priority_queue<Event> events_;
  std::set<std::pair<double, std::uint64_t>> arriving_;  // (whole_at, id) of the messages that are being received
  double received_ = 0;
  Clock::time_point received_at_;
  std::uint64_t arrival_turn_ = 0;
  std::uint64_t sequence_ = 0, next_id_ = 0;
  std::int64_t count_ = 0;
  int computing_ = 0;
  double computed_seconds_ = 0;
  bool stopped_ = false;
  Clock::time_point stop_;
  OverloadResult result_;
};

}  // namespace

OverloadResult RunOverload(const OverloadOptions& options) { return Model(options).Run(); }

}  // namespace attnd::bench
