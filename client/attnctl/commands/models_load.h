// `attnctl models load`: loads a model from the server's model root.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsLoadCommand();

}  // namespace attnd::ctl
