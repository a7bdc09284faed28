// One grid of cells with its axes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bias/picture.h"
#include "bias/picture_canvas.h"
#include "bias/picture_colour.h"

namespace attnd::bias {

// One way to write the labels of cells: by offset, and from the smallest size of text to the largest.
struct LabelForm {
  std::function<Label(std::int64_t)> label;
  double smallest, largest;
  std::string more;  // attributes of the text
};

// How the cells of an offset look: their colour, and their label in the first form that there is room for.
struct Look {
  std::function<Colour(std::int64_t)> colour;
  std::vector<LabelForm> forms;
};

// Of a window's cells, and of the labels in them (0: none) in this form. In pixels.
struct CellSize {
  double width, height;
  double label;
  std::size_t form;
};

// A grid of at most `plot` pixels a side, or as much more, up to `grown`, as makes its labels legible.
CellSize Fitted(const PictureWindow& window, const Look& look, double plot, double grown);

// The width of the queries' positions, which stand left of the grid.
double RoomForRows(const PictureWindow& window, const CellSize& size);

// A window's grid on a canvas. Both are borrowed.
class Panel {
 public:
  Panel(Canvas& canvas, const PictureWindow& window, const CellSize& size, double left, double top);

  double left() const { return left_; }
  double top() const { return top_; }
  double right() const { return left_ + width_; }
  double bottom() const { return top_ + height_; }
  double width() const { return width_; }
  double height() const { return height_; }

  void Draw(const Look& look);
  void RowNames();     // the queries' positions, left of the grid
  void ColumnNames();  // the keys' positions, above it

 private:
  std::string Scaled() const;
  void Cells(const Look& look);
  void Lines();
  void Bands(const Look& look);
  std::string From(std::int64_t offset) const;
  void Labels(const Look& look);

  Canvas& canvas_;
  const PictureWindow& window_;
  CellSize size_;
  double left_, top_, width_, height_;
};

}  // namespace attnd::bias
