// The bias of a window, for people.
#pragma once

#include <string>

#include "attnd/models.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// In both `reply` must be the answer to `request`, with as many cells as its window has.

// A picture of the window: the values of the reply's heads, if `values` or if there are no buckets. SVG or text as
// --format says; text is in colour if it goes to a terminal.
std::string Picture(const BiasRequest& request, const BiasReply& reply, bool values, const Flags& flags);

// What the bias of a window of one cell is, and why.
std::string Sentence(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
