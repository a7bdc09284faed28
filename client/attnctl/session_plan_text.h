// A plan for sessions as `attnctl sessions plan` prints it.
#pragma once

#include <string>

#include "client/attnctl/session_plan.h"

namespace attnd::ctl {

// What one reserves, part by part with its formula, and how many fit. `server` is its address; empty for --budget.
std::string TextOfPlan(const SessionPlan& plan, const SessionBudget& budget, const std::string& server);

// The same numbers.
std::string JsonOfPlan(const SessionPlan& plan, const SessionBudget& budget);

}  // namespace attnd::ctl
