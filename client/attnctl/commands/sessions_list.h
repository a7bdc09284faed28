// `attnctl sessions list`: what the open sessions are and hold.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsListCommand();

}  // namespace attnd::ctl
