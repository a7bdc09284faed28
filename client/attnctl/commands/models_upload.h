// `attnctl models upload`: sends a model's tables from this machine.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command ModelsUploadCommand();

}  // namespace attnd::ctl
