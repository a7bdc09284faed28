// What stands beside a picture's grid.
#pragma once

#include <cstdint>
#include <map>

#include "bias/picture.h"
#include "bias/picture_canvas.h"
#include "bias/picture_panel.h"
#include "bias/picture_scale.h"

namespace attnd::bias {

// The buckets' offsets, in columns as tall as the grid `panel`; below it, if it is a strip.
void BucketLegend(Canvas& canvas, const PictureWindow& window, const std::map<std::int32_t, BucketKey>& keys,
                  const Panel& panel);

// The scale from least to greatest, zero in its middle, right of `panel`.
void ColourBar(Canvas& canvas, const PictureWindow& window, const ValueScale& scale, const Panel& panel);

}  // namespace attnd::bias
