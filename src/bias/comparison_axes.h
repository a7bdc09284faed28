// Where a comparison's panels, offsets and values lie in its picture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bias/comparison.h"

namespace attnd::bias {

// In pixels: between panels that stand side by side, and from a panel's edge to where its curves may begin.
inline constexpr double kPanelGap = 26, kPanelInset = 4;

struct PanelSize {
  double width, height;  // pixels
};

// How many panels stand side by side, and their size.
std::int64_t PanelColumns(std::size_t panels);
PanelSize SizeOfPanels(std::int64_t columns);

// Across a panel: offsets, linear, or by log2(1 + |offset|) to both sides of 0.
class OffsetAxis {
 public:
  OffsetAxis(const Comparison& comparison, PanelSize size);

  double X(std::int64_t offset) const;
  // Round offsets whose labels have room, ascending.
  std::vector<std::int64_t> Ticks() const;

 private:
  double Place(std::int64_t offset) const;

  const bool log_;
  const std::int64_t min_offset_, max_offset_;
  const double low_, high_, width_;
};

// The values that all panels' common axis spans.
struct ValueSpan {
  double low, high;
  bool cut;  // curves that fall for ever leave it

  // Round values, ascending; at most six.
  std::vector<double> Ticks() const;
};

// All values of the tables, but no more than 10 below its highest of a curve that falls for ever: e^-10 of the weight.
ValueSpan SpanOf(const Comparison& comparison);

}  // namespace attnd::bias
