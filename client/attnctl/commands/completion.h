// `attnctl completion`.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command CompletionCommand();

}  // namespace attnd::ctl
