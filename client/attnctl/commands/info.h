// `attnctl info`: the server's facts.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command InfoCommand();

}  // namespace attnd::ctl
