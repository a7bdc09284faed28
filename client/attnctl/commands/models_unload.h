// `attnctl models unload`: removes a model.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsUnloadCommand();

}  // namespace attnd::ctl
