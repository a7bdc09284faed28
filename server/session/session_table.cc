#include "server/session/session_table.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "memory/no_memory.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

absl::Status TooMany(absl::string_view field, std::int64_t most, absl::string_view whose) {
  return FieldError(absl::StatusCode::kResourceExhausted, "open",
                    absl::StrCat("at most ", most, " sessions ", whose, " at a time (--", field, ")"), "one more");
}

}  // namespace

SessionTable::SessionTable(const SessionOptions& options) : options_(options), thread_([this] { Run(); }) {}

SessionTable::~SessionTable() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status SessionTable::Add(const std::shared_ptr<OpenSession>& session, const memory::Account* peer) {
  absl::MutexLock lock(&mutex_);
  if (going_away_) return StoppingError();
  const auto of_peer = of_peers_.find(peer);
  if (static_cast<std::int64_t>(sessions_.size()) >= options_.most) {
    return TooMany("max_sessions", options_.most, "in all");
  }
  if (of_peer != of_peers_.end() && of_peer->second >= options_.most_of_peer) {
    return TooMany("max_peer_sessions", options_.most_of_peer, "of one peer");
  }
  std::int64_t& count = of_peers_[peer];
  sessions_.emplace(session.get(), Entry{session, peer, next_id_++});
  ++count;
  return absl::OkStatus();
}

void SessionTable::Remove(const OpenSession* session) {
  absl::MutexLock lock(&mutex_);
  const auto entry = sessions_.find(session);
  if (entry == sessions_.end()) return;
  const auto of_peer = of_peers_.find(entry->second.peer);
  if (--of_peer->second == 0) of_peers_.erase(of_peer);
  sessions_.erase(entry);
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
  std::vector<std::shared_ptr<OpenSession>> sessions;
  {
    absl::MutexLock lock(&mutex_);
    if (going_away_) return;
    going_away_ = true;
    for (const auto& [key, entry] : sessions_) sessions.push_back(entry.session.lock());
  }
  for (const std::shared_ptr<OpenSession>& session : sessions) {
    if (session != nullptr) session->SayGoingAway(time_left);
  }
}

SessionTable::Use SessionTable::use() const {
  absl::MutexLock lock(&mutex_);
  return {static_cast<std::int64_t>(sessions_.size()), evicted_, options_.most, options_.most_of_peer};
}

void SessionTable::Run() {
  const absl::Duration look =
      std::clamp(std::min(options_.idle, options_.life) / 4, absl::Milliseconds(10), absl::Seconds(1));
  for (;;) {
    // Asked without the lock, since an end may remove the session at once.
    std::vector<std::shared_ptr<OpenSession>> sessions;
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), look)) return;
      static_cast<void>(memory::CatchNoMemoryIn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        for (const auto& [key, entry] : sessions_) sessions.push_back(entry.session.lock());
      }));
    }
    std::int64_t ended = 0;
    const OpenSession::Clock::time_point now = OpenSession::Clock::now();
    for (const std::shared_ptr<OpenSession>& session : sessions) {
      if (session != nullptr && session->EndIfOver(now)) ++ended;
    }
    absl::MutexLock lock(&mutex_);
    evicted_ += ended;
  }
}

}  // namespace attnd::server
