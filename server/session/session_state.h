// The part of a session that outlives its connection.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "attnd/v1/session.pb.h"
#include "memory/ledger.h"
#include "schedule/scheduler.h"
#include "server/session/session.h"

namespace attnd::server {

struct SessionState {
  std::shared_ptr<memory::Account> account;  // of the last peer that had it
  memory::Ticket reserved;                   // destroyed after the session
  std::unique_ptr<Session> session;          // without a step under way
  v1::SessionInfo said;                      // what ListSessions shows, except for its times
  std::string token;                         // resumes it; empty: it cannot be resumed
  absl::Duration grace;                      // how long it is kept without a connection
  schedule::Clock::time_point begun_at;
};

}  // namespace attnd::server
