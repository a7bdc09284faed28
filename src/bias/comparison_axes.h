// The geometry of a comparison's picture: where panels, offsets and values are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bias/comparison.h"

namespace attnd::bias {

// In pixels: the gap between neighbouring panels, and from a panel's edge to where curves may begin.
inline constexpr double kPanelGap = 26, kPanelInset = 4;

struct PanelSize {
  double width, height;  // pixels
};

// The number of panels side by side, and the size of each.
std::int64_t PanelColumns(std::size_t panels);
PanelSize SizeOfPanels(std::int64_t columns);

// The horizontal axis of a panel: offsets, linear, or by log2(1 + |offset|) on both sides of 0.
class OffsetAxis {
 public:
  OffsetAxis(const Comparison& comparison, PanelSize size);

  double X(std::int64_t offset) const;
  // Round offsets whose labels have enough room, ascending.
  std::vector<std::int64_t> Ticks() const;

 private:
  double Place(std::int64_t offset) const;

  const bool log_;
  const std::int64_t min_offset_, max_offset_;
  const double low_, high_, width_;
};

// The range of values of the vertical axis, which all panels share.
struct ValueSpan {
  double low, high;
  bool cut;  // curves that fall for ever leave the axis

  // Round values, ascending; at most six.
  std::vector<double> Ticks() const;
};

// Spans all values of the tables, except that a curve that falls for ever counts only down to 10 below its highest
// value: a weight of e^-10.
ValueSpan SpanOf(const Comparison& comparison);

}  // namespace attnd::bias
