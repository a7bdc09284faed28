#include "client/src/region_keeper.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "client/src/shm_socket.h"

namespace attnd::client {
namespace {

using State = RegionKeeper::Region::State;

// Rounded up, so that `time` has passed when poll returns.
int MillisecondsUntil(RegionKeeper::Clock::time_point time) {
  if (time == RegionKeeper::Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(time - RegionKeeper::Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

}  // namespace

bool RegionKeeper::Settle(Regions regions, Clock::time_point deadline, std::function<void()> settled) {
  const Clock::time_point latest = Clock::now() + kPatience;
  absl::MutexLock lock(&mutex_);
  // The thread may not have noticed yet that the server closed the connection, and with it forgot all regions.
  if (socket_.valid() && HasEnded(socket_.get())) forget_ = true;
  if (stopping_ || !Started() || IsSettled(regions)) return true;
  waiters_.push_back({std::move(regions), std::min(deadline, latest), std::move(settled)});
  Ask(waiters_.back().regions);
  thread_.Wake();
  return false;
}

bool RegionKeeper::Started() {
  return thread_.Start([self = shared_from_this()] { self->Run(); });
}

bool RegionKeeper::IsSettled(const Regions& regions) const {
  if (forget_ || !socket_.valid()) return Resting();
  return std::all_of(regions.begin(), regions.end(), [](const auto& region) {
    return region->state == State::kShared || region->state == State::kRefused;
  });
}

void RegionKeeper::Ask(const Regions& regions) {
  if (forget_ || !socket_.valid()) return;  // Connect asks for them
  for (const auto& region : regions) {
    if (region->state != State::kUnknown) continue;
    region->state = State::kAsked;
    known_.push_back(region);
    jobs_.push_back({shm::Operation::kRegister, region, {}});
  }
}

bool RegionKeeper::Offered() {
  absl::MutexLock lock(&mutex_);
  return socket_.valid() && !forget_;
}

std::optional<shm::Handle> RegionKeeper::HandleOf(const Region& region) {
  absl::MutexLock lock(&mutex_);
  if (forget_ || region.state != State::kShared) return std::nullopt;
  return region.handle;
}

void RegionKeeper::Release(const std::shared_ptr<Region>& region) {
  absl::MutexLock lock(&mutex_);
  region->released = true;  // if registration is under way, Finish releases it
  if (region->state == State::kUnknown) return;
  if (region->state == State::kShared) jobs_.push_back({shm::Operation::kRelease, nullptr, region->handle});
  if (region->state != State::kAsked) std::erase(known_, region);
  thread_.Wake();
}

void RegionKeeper::Check() {
  absl::MutexLock lock(&mutex_);
  if (!socket_.valid() || !HasEnded(socket_.get())) return;
  forget_ = true;
  thread_.Wake();
}

void RegionKeeper::Forget() {
  absl::MutexLock lock(&mutex_);
  if (!socket_.valid()) return;
  forget_ = true;
  thread_.Wake();
}

void RegionKeeper::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  thread_.Wake();
}

void RegionKeeper::Run() {
  while (true) {
    std::vector<std::function<void()>> settled;
    std::array<pollfd, 2> polled{};
    int timeout = 0;
    bool stop = false;
    {
      absl::MutexLock lock(&mutex_);
      thread_.Clear();
      stop = stopping_;
      if (stop) {
        Drop(Clock::duration::zero());
      } else {
        Step();
      }
      settled = TakeSettled();
      timeout = MillisecondsUntil(NextTime());
      polled[0] = {thread_.fd(), POLLIN, 0};
      polled[1] = {socket_.get(), static_cast<short>(!current_ && !jobs_.empty() ? POLLIN | POLLOUT : POLLIN), 0};
    }
    for (const auto& call : settled) call();
    settled.clear();  // the callbacks hold their calls and thereby the client, which may be destroyed while this thread
                      // waits
    if (stop) return;
    // The result does not matter: Step checks the state itself.
    poll(polled.data(), polled.size(), timeout);
  }
}

void RegionKeeper::Step() {
  if (forget_) Drop(Clock::duration::zero());
  if (socket_.valid()) Receive();
  if (current_.has_value() && Clock::now() >= answer_by_) Drop(kRestAfterSilence);
  if (!socket_.valid() && !waiters_.empty() && !Resting()) Connect();
  while (socket_.valid() && !current_.has_value() && !jobs_.empty()) {
    const Job& job = jobs_.front();
    shm::Request request = FixedRequest(job.operation);
    request.handle = job.handle;
    if (job.region != nullptr) request.size = job.region->size;
    const Transfer sent = SendRequest(socket_.get(), request, job.region != nullptr ? job.region->fd.get() : -1);
    if (sent == Transfer::kNotYet) return;
    if (sent == Transfer::kBroken) return Drop(kRest);
    current_ = std::move(jobs_.front());
    jobs_.pop_front();
    answer_by_ = Clock::now() + kPatience;
    Receive();
  }
}

void RegionKeeper::Connect() {
  socket_ = ConnectSeqpacket(path_);
  if (!socket_.valid()) {
    next_attempt_ = Clock::now() + kRest;
    return;
  }
  for (const Waiter& waiter : waiters_) Ask(waiter.regions);
}

void RegionKeeper::Drop(Clock::duration rest) {
  if (socket_.valid()) EndConnection(socket_.get());
  socket_ = shm::UniqueFd();
  forget_ = false;
  if (rest > Clock::duration::zero()) next_attempt_ = Clock::now() + rest;
  for (const auto& region : known_) region->state = State::kUnknown;
  known_.clear();
  jobs_.clear();
  current_.reset();
}

void RegionKeeper::Receive() {
  shm::Reply reply;
  switch (ReceiveReply(socket_.get(), reply)) {
    case Transfer::kNotYet:
      return;
    case Transfer::kDone:
      if (current_.has_value()) return Finish(reply);
      return Drop(kRest);  // the server never sends without a request
    case Transfer::kBroken:
      return Drop(current_.has_value() ? kRest : Clock::duration::zero());
  }
}

void RegionKeeper::Finish(const shm::Reply& reply) {
  const Job job = *std::move(current_);
  current_.reset();
  if (job.region == nullptr) return;
  Region& region = *job.region;
  region.state = reply.code == 0 ? State::kShared : State::kRefused;
  region.handle = reply.handle;
  if (!region.released) return;
  std::erase(known_, job.region);
  if (region.state == State::kShared) jobs_.push_back({shm::Operation::kRelease, nullptr, region.handle});
}

std::vector<std::function<void()>> RegionKeeper::TakeSettled() {
  std::vector<std::function<void()>> settled;
  const Clock::time_point now = Clock::now();
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    if (!stopping_ && now < waiter->deadline && !IsSettled(waiter->regions)) {
      ++waiter;
      continue;
    }
    settled.push_back(std::move(waiter->settled));
    waiter = waiters_.erase(waiter);
  }
  return settled;
}

RegionKeeper::Clock::time_point RegionKeeper::NextTime() const {
  Clock::time_point next = current_.has_value() ? answer_by_ : Clock::time_point::max();
  for (const Waiter& waiter : waiters_) next = std::min(next, waiter.deadline);
  return next;
}

}  // namespace attnd::client
