// `attnctl manual`.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ManualCommand();

}  // namespace attnd::ctl
