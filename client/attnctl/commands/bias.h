// `attnctl bias`: draws the bias of a window of queries and keys, or prints it as JSON or as a sentence.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command BiasCommand();

}  // namespace attnd::ctl
