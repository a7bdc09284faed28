// `attnctl models show`: one model and its tables.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsShowCommand();

}  // namespace attnd::ctl
