// `attnctl bias`: the bias of a window of queries and keys, drawn, as JSON or in a sentence.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command BiasCommand();

}  // namespace attnd::ctl
