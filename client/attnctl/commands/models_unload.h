// `attnctl models unload`: a model removed.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsUnloadCommand();

}  // namespace attnd::ctl
