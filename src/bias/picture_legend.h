// The legends beside a picture's grid.
#pragma once

#include <cstdint>
#include <map>

#include "bias/picture.h"
#include "bias/picture_canvas.h"
#include "bias/picture_panel.h"
#include "bias/picture_scale.h"

namespace attnd::bias {

// The offsets of the buckets, in columns as tall as `panel`; below `panel` if it is a wide strip.
void BucketLegend(Canvas& canvas, const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys,
                  const Panel& panel);

// The colour scale from least to greatest, with zero in the middle, to the right of `panel`.
void ColourBar(Canvas& canvas, const PictureWindow& window, const ValueScale& scale, const Panel& panel);

}  // namespace attnd::bias
