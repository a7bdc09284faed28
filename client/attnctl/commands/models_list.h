// `attnctl models list`: a table of the loaded models.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsListCommand();

}  // namespace attnd::ctl
