#include "bias/picture_axes.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace attnd::bias {
namespace {

constexpr double kTick = 11, kLargestName = 19;  // sizes of text
constexpr std::int64_t kMostTicks = 12;

Label LastKey(const PictureWindow& window) { return Indexed("k", window.key_start + window.keys - 1); }

double NameSize(const PictureWindow& window, const CellSize& size) {
  const double fits = (size.width - 8) / LastKey(window).ems;
  return std::min(std::max(std::min(0.3 * std::min(size.width, size.height), fits), kTick), kLargestName);
}

// The step from one named row or column to the next: 1 if each has room for its name, otherwise a power of two.
std::int64_t Step(std::int64_t count, double cell, double name, double number) {
  std::int64_t step = 1;
  while ((step == 1 && cell < name) ||
         (step > 1 && (static_cast<double>(step) * cell < number || count / step > kMostTicks))) {
    step *= 2;
  }
  return step;
}

struct Steps {
  std::int64_t rows, columns;
};

Steps StepsOf(const PictureWindow& window, const CellSize& size) {
  const double name = NameSize(window, size);
  const double key = LastKey(window).ems * name + 4;
  const double number = Plain(absl::StrCat(window.key_start + window.keys - 1)).ems * kTick + 10;
  Steps steps{Step(window.queries, size.height, 1.1 * name, 1.5 * kTick), Step(window.keys, size.width, key, number)};
  if (size.width == size.height) steps.rows = steps.columns = std::max(steps.rows, steps.columns);
  return steps;
}

// The rows or columns at multiples of the step.
std::vector<Tick> Ticks(std::int64_t start, std::int64_t count, std::int64_t step, const char* letter) {
  std::vector<Tick> ticks;
  for (std::int64_t i = (step - start % step) % step; i < count; i += step) {
    ticks.push_back({i, step == 1 ? Indexed(letter, start + i) : Plain(absl::StrCat(start + i))});
  }
  if (ticks.empty()) ticks.push_back({0, Plain(absl::StrCat(start))});
  return ticks;
}

}  // namespace

GridAxis RowAxis(const PictureWindow& window, const CellSize& size) {
  const std::int64_t step = StepsOf(window, size).rows;
  return {step == 1, step == 1 ? NameSize(window, size) : kTick, Ticks(window.query_start, window.queries, step, "q")};
}

GridAxis ColumnAxis(const PictureWindow& window, const CellSize& size) {
  const std::int64_t step = StepsOf(window, size).columns;
  return {step == 1, step == 1 ? NameSize(window, size) : kTick, Ticks(window.key_start, window.keys, step, "k")};
}

}  // namespace attnd::bias
