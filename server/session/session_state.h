// What of a session outlives its connection.
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
  std::shared_ptr<memory::Account> account;  // of the peer who had it last
  memory::Ticket reserved;                   // goes after the session
  std::unique_ptr<Session> session;          // without a step under way
  v1::SessionInfo said;                      // to operators, but for its times
  std::string token;                         // which resumes it; empty: nothing does
  absl::Duration grace;                      // for which it is kept without a connection
  schedule::Clock::time_point begun_at;
};

}  // namespace attnd::server
