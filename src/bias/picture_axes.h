// The labels of a grid's rows and columns.
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

struct GridAxis {
  bool all;     // all rows or columns are named, by an indexed letter; otherwise some are, by position
  double size;  // of the text
  std::vector<Tick> ticks;
};

GridAxis RowAxis(const PictureWindow& window, const CellSize& size);
GridAxis ColumnAxis(const PictureWindow& window, const CellSize& size);

}  // namespace attnd::bias
