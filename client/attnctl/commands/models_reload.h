// `attnctl models reload`: reads a model again from where it was loaded.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsReloadCommand();

}  // namespace attnd::ctl
