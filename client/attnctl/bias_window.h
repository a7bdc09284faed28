// A window of the bias as it was asked for and answered, as pictures take it.
#pragma once

#include <string>

#include "attnd/models.h"
#include "bias/picture.h"

namespace attnd::ctl {

// Borrows from `reply`, which must be the answer to `request`, with as many cells as its window has. With the values of
// all of the reply's heads.
bias::PictureWindow PictureOf(const BiasRequest& request, const BiasReply& reply);

// A value of it, in the fewest digits that give the same float again.
std::string Shortest(float value);

}  // namespace attnd::ctl
