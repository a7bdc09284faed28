// `attnctl sessions plan`: what a session reserves, and how many fit.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsPlanCommand();

}  // namespace attnd::ctl
