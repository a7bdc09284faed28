// Prints a plan for sessions, for `attnctl sessions plan`.
#pragma once

#include <string>

#include "client/attnctl/session_plan.h"

namespace attnd::ctl {

// What one session reserves, with the formula of each part, and how many fit. `server` is its address; empty with
// --budget.
std::string TextOfPlan(const SessionPlan& plan, const SessionBudget& budget, const std::string& server);

// The same numbers as JSON.
std::string JsonOfPlan(const SessionPlan& plan, const SessionBudget& budget);

}  // namespace attnd::ctl
