#include "server/session/session_table.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "memory/no_memory.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

absl::Status TooMany(absl::string_view field, std::int64_t most, absl::string_view whose) {
  return FieldError(absl::StatusCode::kResourceExhausted, "open",
                    absl::StrCat("at most ", most, " sessions ", whose, " at a time (--", field, ")"), "one more");
}

// Retry delay when the table is full: sessions end whenever their callers end them.
constexpr absl::Duration kComeBack = absl::Seconds(1);
// Retry delay while another session or connection is ending.
constexpr absl::Duration kYields = absl::Milliseconds(100);

// A session without a connection.
class ParkedSession final : public OpenSession {
 public:
  ParkedSession(SessionTable& table, SessionState state) : table_(table), state_(std::move(state)) {}

  bool EndIfOver(Clock::time_point now) override {
    absl::Duration most = absl::ZeroDuration();
    {
      absl::MutexLock lock(&mutex_);
      if (!state_.has_value()) return false;
      most = std::min(state_->grace, table_.options().life - absl::FromChrono(parked_at_ - state_->begun_at));
    }
    return absl::FromChrono(now - parked_at_) > most && Evict();
  }

  std::optional<Idle> IdleFor(Clock::time_point now) override {
    absl::MutexLock lock(&mutex_);
    if (!state_.has_value()) return std::nullopt;
    return Idle{absl::FromChrono(now - parked_at_), state_->reserved.bytes()};
  }

  bool EndIfLeaseIsOver(Clock::time_point now) override {
    return absl::FromChrono(now - parked_at_) > table_.options().lease && Evict();
  }

  bool Evict() override {
    std::optional<SessionState> state = Yield();
    if (!state.has_value()) return false;
    table_.Remove(this);
    table_.Free(*std::move(state));
    return true;
  }

  void Describe(Clock::time_point now, v1::SessionInfo& info) override {
    absl::MutexLock lock(&mutex_);
    if (!state_.has_value()) return;
    info.MergeFrom(state_->said);
    *info.mutable_age() = ToProto(absl::FromChrono(now - state_->begun_at));
    *info.mutable_idle() = ToProto(absl::FromChrono(now - parked_at_));
  }

  // A stopping server resumes no session.
  void SayGoingAway(absl::Duration) override { Evict(); }
  void EndForStop() override { Evict(); }

  std::optional<SessionState> Yield() override {
    absl::MutexLock lock(&mutex_);
    return std::exchange(state_, std::nullopt);
  }

 private:
  SessionTable& table_;
  const Clock::time_point parked_at_ = Clock::now();
  absl::Mutex mutex_;
  std::optional<SessionState> state_ ABSL_GUARDED_BY(mutex_);  // nullopt once resumed or ended
};

}  // namespace

SessionTable::SessionTable(const SessionOptions& options) : options_(options), thread_([this] { Run(); }) {}

SessionTable::~SessionTable() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = going_away_ = true;
    std::erase_if(sessions_, [](const auto& entry) { return entry.second.parked != nullptr; });
    mutex_.Await(absl::Condition(&sessions_, &decltype(sessions_)::empty));
  }
  thread_.join();
}

absl::Status SessionTable::Add(const std::shared_ptr<OpenSession>& session, const memory::Account* peer) {
  absl::Status added = TryAdd(session, peer);
  if (!absl::IsResourceExhausted(added)) return added;
  bool of_peer = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto count = of_peers_.find(peer);
    of_peer = count != of_peers_.end() && count->second >= options_.most_of_peer;
  }
  const bool ended = EndOneOf(of_peer ? peer : nullptr);
  if (ended) added = TryAdd(session, peer);
  if (absl::IsResourceExhausted(added)) SetRetryDelay(ended ? kYields : kComeBack, added);
  return added;
}

bool SessionTable::EndOneOf(const memory::Account* peer) {
  std::vector<std::shared_ptr<OpenSession>> candidates;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, entry] : sessions_) {
      if (entry.parked != nullptr || (peer != nullptr && entry.peer != peer)) continue;
      if (std::shared_ptr<OpenSession> session = entry.session.lock()) candidates.push_back(std::move(session));
    }
  }
  return EndLongestIdle(candidates, 1);
}

bool SessionTable::MakeRoom(std::int64_t bytes) { return EndLongestIdle(All(), bytes); }

bool SessionTable::EndLongestIdle(const std::vector<std::shared_ptr<OpenSession>>& candidates, std::int64_t bytes) {
  struct Over {
    absl::Duration time;
    std::int64_t bytes;
    OpenSession* session;
  };
  const OpenSession::Clock::time_point now = OpenSession::Clock::now();
  std::vector<Over> over;
  std::int64_t most = 0;
  for (const std::shared_ptr<OpenSession>& session : candidates) {
    const std::optional<OpenSession::Idle> idle = session->IdleFor(now);
    if (!idle.has_value() || idle->time <= options_.lease) continue;
    over.push_back({idle->time, idle->reserved_bytes, session.get()});
    most += idle->reserved_bytes;
  }
  if (most < bytes) return false;  // do not evict without making enough room
  std::sort(over.begin(), over.end(), [](const Over& a, const Over& b) { return a.time > b.time; });
  std::int64_t ended = 0, given_back = 0;
  for (const Over& one : over) {
    if (given_back >= bytes) break;
    if (!one.session->EndIfLeaseIsOver(now)) continue;
    ++ended;
    given_back += one.bytes;
  }
  absl::MutexLock lock(&mutex_);
  evicted_ += ended;
  return ended > 0;
}

std::vector<std::shared_ptr<OpenSession>> SessionTable::All() const {
  std::vector<std::shared_ptr<OpenSession>> all;
  absl::MutexLock lock(&mutex_);
  for (const auto& [key, entry] : sessions_) {
    if (std::shared_ptr<OpenSession> session = entry.session.lock()) all.push_back(std::move(session));
  }
  return all;
}

absl::Status SessionTable::TryAdd(const std::shared_ptr<OpenSession>& session, const memory::Account* peer) {
  absl::MutexLock lock(&mutex_);
  if (going_away_) return StoppingError();
  const auto of_peer = of_peers_.find(peer);
  if (static_cast<std::int64_t>(sessions_.size()) - parked_ >= options_.most) {
    return TooMany("max_sessions", options_.most, "in all");
  }
  if (of_peer != of_peers_.end() && of_peer->second >= options_.most_of_peer) {
    return TooMany("max_peer_sessions", options_.most_of_peer, "of one peer");
  }
  std::int64_t& count = of_peers_[peer];
  sessions_.emplace(session.get(), Entry{session, peer, next_id_++, {}});
  ++count;
  return absl::OkStatus();
}

void SessionTable::Remove(const OpenSession* session) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  CountOut(found->second);
  sessions_.erase(found);
}

void SessionTable::CountOut(Counts& counts, const memory::Account* peer) {
  const auto count = counts.find(peer);
  if (--count->second == 0) counts.erase(count);
}

void SessionTable::CountOut(const Entry& entry) {
  CountOut(entry.parked != nullptr ? parked_of_peers_ : of_peers_, entry.peer);
  if (entry.parked != nullptr) --parked_;
}

void SessionTable::SetToken(const OpenSession* session, const std::string& token) {
  absl::MutexLock lock(&mutex_);
  sessions_.at(session).token = token;
}

void SessionTable::Park(const OpenSession* session, SessionState state) {
  const memory::Account* const peer = state.account.get();  // kept alive by the state
  const auto parked = std::make_shared<ParkedSession>(*this, std::move(state));
  {
    absl::MutexLock lock(&mutex_);
    const auto found = sessions_.find(session);
    const auto of_peer = parked_of_peers_.find(peer);
    const std::int64_t has = of_peer == parked_of_peers_.end() ? 0 : of_peer->second;
    if (!going_away_ && parked_ < options_.most && has < options_.most_of_peer && found != sessions_.end()) {
      sessions_.emplace(parked.get(), Entry{parked, peer, found->second.id, found->second.token, parked});
      ++parked_of_peers_[peer];
      ++parked_;
      CountOut(found->second);
      sessions_.erase(found);
      return;
    }
  }
  if (std::optional<SessionState> refused = parked->Yield()) Free(*std::move(refused));
}

void SessionTable::Free(SessionState state) {
  absl::MutexLock lock(&mutex_);
  // Without memory for the list, the state is freed on this thread.
  static_cast<void>(
      memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { to_free_.push_back(std::move(state)); }));
}

absl::StatusOr<SessionState> SessionTable::Resume(const std::string& token, const OpenSession* by) {
  std::shared_ptr<OpenSession> before;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, entry] : sessions_) {
      if (!token.empty() && entry.token == token) before = entry.session.lock();
    }
  }
  if (before == nullptr) {
    return FieldError(absl::StatusCode::kNotFound, "resume.token",
                      "that of a session whose connection was lost less than its grace time ago", "another one");
  }
  std::optional<SessionState> state = before->Yield();
  if (!state.has_value()) {
    absl::Status busy = absl::UnavailableError("another connection has the session still, and was told to end");
    SetRetryDelay(kYields, busy);
    return busy;
  }
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(before.get());
  Entry& entry = sessions_.at(by);
  entry.id = found->second.id;
  entry.token = std::move(found->second.token);  // does not allocate
  CountOut(found->second);
  sessions_.erase(found);
  return *std::move(state);
}

v1::ListSessionsResponse SessionTable::List() const {
  std::map<std::uint64_t, std::shared_ptr<OpenSession>> sessions;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, entry] : sessions_) sessions.emplace(entry.id, entry.session.lock());
  }
  v1::ListSessionsResponse list;
  const OpenSession::Clock::time_point now = OpenSession::Clock::now();
  for (const auto& [id, session] : sessions) {
    if (session == nullptr) continue;
    v1::SessionInfo& info = *list.add_sessions();
    info.set_id(id);
    session->Describe(now, info);
  }
  return list;
}

absl::Status SessionTable::Evict(std::uint64_t id) {
  std::shared_ptr<OpenSession> session;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, entry] : sessions_) {
      if (entry.id == id) session = entry.session.lock();
    }
  }
  if (session == nullptr || !session->Evict()) {
    return FieldError(absl::StatusCode::kNotFound, "id", "that of an open session", absl::StrCat(id));
  }
  absl::MutexLock lock(&mutex_);
  ++evicted_;
  return absl::OkStatus();
}

void SessionTable::GoAway(absl::Duration time_left) {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(going_away_, true)) return;
  }
  for (const std::shared_ptr<OpenSession>& session : All()) session->SayGoingAway(time_left);
}

void SessionTable::EndAll() {
  for (const std::shared_ptr<OpenSession>& session : All()) session->EndForStop();
}

SessionTable::Use SessionTable::use() const {
  absl::MutexLock lock(&mutex_);
  return {static_cast<std::int64_t>(sessions_.size()), evicted_, options_.most, options_.most_of_peer};
}

void SessionTable::Run() {
  const absl::Duration shortest_grace =
      options_.grace > absl::ZeroDuration() ? options_.grace : absl::InfiniteDuration();
  const absl::Duration look = std::clamp(std::min({options_.idle, options_.life, shortest_grace}) / 4,
                                         absl::Milliseconds(10), absl::Seconds(1));
  for (;;) {
    std::vector<SessionState> freed;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(this, &SessionTable::HasWork), look);
      freed.swap(to_free_);
      if (stopping_) return;
    }
    freed.clear();
    // Called without the lock, because a session that ends may remove itself at once.
    std::vector<std::shared_ptr<OpenSession>> sessions;
    static_cast<void>(memory::CatchNoMemoryIn([&] { sessions = All(); }));
    std::int64_t ended = 0;
    const OpenSession::Clock::time_point now = OpenSession::Clock::now();
    for (const std::shared_ptr<OpenSession>& session : sessions) {
      if (session->EndIfOver(now)) ++ended;
    }
    absl::MutexLock lock(&mutex_);
    evicted_ += ended;
  }
}

}  // namespace attnd::server
