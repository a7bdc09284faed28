// Which rows and columns of a grid are named, and how.
#pragma once

#include <cstdint>
#include <vector>

#include "bias/picture.h"
#include "bias/picture_canvas.h"
#include "bias/picture_panel.h"

namespace attnd::bias {

struct Tick {
  std::int64_t place;  // row or column
  Label label;
};

struct Axis {
  bool all;     // every row or column is named, by a letter with an index; else some are, by their positions
  double size;  // of the text
  std::vector<Tick> ticks;
};

Axis RowAxis(const PictureWindow& window, const CellSize& size);
Axis ColumnAxis(const PictureWindow& window, const CellSize& size);

}  // namespace attnd::bias
