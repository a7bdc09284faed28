// Converts a bias request and its reply to the window that pictures use.
#pragma once

#include "attnd/models.h"
#include "bias/picture.h"

namespace attnd::ctl {

// Contains the values of all heads in `reply`, and borrows from it. `reply` must answer `request` and have as many
// cells as its window.
bias::PictureWindow PictureOf(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
