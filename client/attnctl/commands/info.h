// `attnctl info`: shows the server's version, state and limits.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command InfoCommand();

}  // namespace attnd::ctl
