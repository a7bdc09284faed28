// `attnctl sessions show`: one open session.
#pragma once

#include "client/attnctl/command.h"

namespace attnd::ctl {

Command SessionsShowCommand();

}  // namespace attnd::ctl
