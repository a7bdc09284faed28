// The bias of a window as text or a picture.
#pragma once

#include <string>

#include "attnd/models.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// In both functions, `reply` must answer `request` and have as many cells as its window.

// A picture of the window: the values of the reply's heads if `values` or if there are no buckets, otherwise the
// buckets. SVG or text, as --format says; text has colour if it goes to a terminal.
std::string Picture(const BiasRequest& request, const BiasReply& reply, bool values, const Flags& flags);

// A sentence that states and explains the bias of a window of one cell.
std::string Sentence(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
