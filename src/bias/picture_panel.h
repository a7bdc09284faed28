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

inline constexpr double kSmallestIndexed = 10.5;  // pixels: the smallest legible text with a subscript

// One way to label cells: a label per offset, the range of text sizes, and the text's attributes.
struct LabelForm {
  std::function<Label(std::int64_t)> label;
  double smallest, largest;
  std::string more;  // attributes of the text
};

// The look of cells by offset: their colour, and their label in the first form that fits.
struct Look {
  std::function<Colour(std::int64_t)> colour;
  std::vector<LabelForm> forms;
};

// Sizes in pixels of a window's cells and of their labels (0: no labels), which use LabelForm number `form`.
struct CellSize {
  double width, height;
  double label;
  std::size_t form;
};

// Cell sizes for a grid of at most `plot` pixels per side, or of up to `grown` if only that makes its labels legible.
CellSize Fitted(const PictureWindow& window, const Look& look, double plot, double grown);

// The width of the query positions, left of the grid.
double RoomForRows(const PictureWindow& window, const CellSize& size);

// Draws a window's grid on a canvas. Borrows both.
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
  void RowNames();     // query positions, left of the grid
  void ColumnNames();  // key positions, above it

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
