// `attnctl attend`: attention over the tensors of a file.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command AttendCommand();

}  // namespace attnd::ctl
