// A window of the bias as it was asked for and answered, as pictures take it.
#pragma once

#include "attnd/models.h"
#include "bias/picture.h"

namespace attnd::ctl {

// Borrows from `reply`, which must be the answer to `request`, with as many cells as its window has. With the values of
// all of the reply's heads.
bias::PictureWindow PictureOf(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
