// All commands of attnctl.
#pragma once

#include <vector>

#include "client/attnctl/command.h"

namespace attnd::ctl {

// In the order in which --help lists them. Thread-safe.
const std::vector<Command>& Commands();

}  // namespace attnd::ctl
