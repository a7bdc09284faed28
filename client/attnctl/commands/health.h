#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command HealthCommand();

}  // namespace attnd::ctl
