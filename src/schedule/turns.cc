#include "schedule/turns.h"

#include <algorithm>

namespace attnd::schedule {

void Turns::Join(Turn* turn) {
  Turn::Set place;
  place.insert(turn);
  Turn::Caller& caller = callers_[turn->caller];  // the last step that may throw
  turn->place = place.extract(place.begin());
  turn->of = &caller;
  ++caller.joined;
}

void Turns::Leave(Turn* turn) {
  Turn::Caller* const caller = turn->of;
  turn->of = nullptr;
  if (--caller->joined == 0) callers_.erase(turn->caller);
}

void Turns::Wait(Turn* turn) {
  Turn::Caller* const caller = turn->of;
  if (caller->turns.empty()) EnterRing(caller);
  caller->turns.insert(std::move(turn->place));
  caller->cost += turn->left;
  cost_ += turn->left;
  ++waiting_;
}

void Turns::Remove(Turn* turn) {
  Turn::Caller* const caller = turn->of;
  turn->place = caller->turns.extract(turn);
  --waiting_;
  caller->cost = caller->turns.empty() ? 0 : caller->cost - turn->left;
  cost_ = waiting_ == 0 ? 0 : cost_ - turn->left;
  if (caller->turns.empty()) LeaveRing(caller);
}

Turn* Turns::Take() {
  if (current_ == nullptr) return nullptr;
  if (ring_ == 1 && current_->deficit <= 0) current_->deficit = quantum_;
  while (current_->deficit <= 0) {
    current_->deficit += quantum_;
    current_ = current_->next;
  }
  Turn* const turn = *current_->turns.begin();
  Remove(turn);
  return turn;
}

bool Turns::Charge(Turn* turn, double cost) {
  turn->left = std::max(0.0, turn->left - cost);
  turn->of->deficit -= cost;
  return turn->of->deficit > 0;
}

double Turns::CostBefore(const Turn& turn, Clock::time_point until, double enough) const {
  double own = 0, others = cost_;
  std::size_t other_callers = ring_;
  if (const auto found = callers_.find(turn.caller); found != callers_.end() && !found->second.turns.empty()) {
    const Turn::Caller& caller = found->second;
    others -= caller.cost;
    --other_callers;
    if ((*caller.turns.rbegin())->due <= until) {
      own = caller.cost;
    } else {
      for (auto at = caller.turns.begin(); at != caller.turns.end() && own <= enough; ++at) {
        if ((*at)->due > until) break;
        own += (*at)->left;
      }
    }
  }
  // Before this job is done, each other caller gets at most one turn more than its caller.
  const double rounds = own + turn.left + quantum_;
  return own + std::min(std::max(0.0, others), static_cast<double>(other_callers) * rounds);
}

// Adds a caller at the end of the ring: its turn comes last.
void Turns::EnterRing(Turn::Caller* caller) {
  ++ring_;
  if (current_ == nullptr) {
    current_ = caller->next = caller->previous = caller;
    return;
  }
  caller->next = current_;
  caller->previous = current_->previous;
  caller->previous->next = caller;
  current_->previous = caller;
}

void Turns::LeaveRing(Turn::Caller* caller) {
  --ring_;
  if (current_ == caller) current_ = ring_ == 0 ? nullptr : caller->next;
  caller->previous->next = caller->next;
  caller->next->previous = caller->previous;
  caller->next = caller->previous = nullptr;
}

}  // namespace attnd::schedule
