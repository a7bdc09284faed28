// attnctl's manual page, generated from the tables of commands and flags.
#pragma once

#include <string>

#include "client/attnctl/flags.h"

namespace attnd::ctl {

// attnctl(1) in roff, with the "man" macros.
std::string ManualPage(const Flags& flags);

}  // namespace attnd::ctl
