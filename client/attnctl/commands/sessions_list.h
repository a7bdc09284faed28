// `attnctl sessions list`: lists the open sessions and their memory.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsListCommand();

}  // namespace attnd::ctl
