// attnctl's manual page, made from the tables of commands and flags.
#pragma once

#include <string>

#include "client/attnctl/flags.h"

namespace attnd::ctl {

// attnctl(1) in roff, for the macros "man".
std::string ManualPage(const Flags& flags);

}  // namespace attnd::ctl
