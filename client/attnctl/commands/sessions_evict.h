// `attnctl sessions evict`: ends sessions.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsEvictCommand();

}  // namespace attnd::ctl
