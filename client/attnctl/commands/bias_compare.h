// `attnctl bias compare`: compares the values of several biases at the same offsets.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command BiasCompareCommand();

}  // namespace attnd::ctl
