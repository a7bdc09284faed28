// `attnctl sessions evict`: sessions ended by an operator.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsEvictCommand();

}  // namespace attnd::ctl
