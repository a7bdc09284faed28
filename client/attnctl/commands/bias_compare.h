// `attnctl bias compare`: what several biases give the same offsets.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command BiasCompareCommand();

}  // namespace attnd::ctl
