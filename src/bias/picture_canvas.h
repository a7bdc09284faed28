// An SVG document that grows with what is drawn on it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::bias {

// Colours of everything except the cells.
inline constexpr absl::string_view kInk = "#20242c", kGrey = "#555d6b", kLine = "#8a919e";
inline constexpr absl::string_view kHatching = "url(#attnd-masked)";  // for masked cells
inline constexpr double kMargin = 24;

// Text with markup, and an upper bound of its width in units of the font size.
struct Label {
  std::string markup;
  double ems;
};

Label Plain(absl::string_view text);
// A letter with a subscript, as in mathematics.
Label Indexed(absl::string_view letter, std::int64_t index);
// q5 . k2
Label Product(std::int64_t query, std::int64_t key);

// A coordinate as text.
std::string Number(double value);

class Canvas {
 public:
  double bottom() const { return bottom_; }

  void Add(absl::string_view element);
  // Extends the document to this point.
  void Reach(double right, double bottom);

  void Rect(double x, double y, double width, double height, absl::string_view attributes);

  // `y` is the baseline. `anchor` is start, middle or end. `more` holds further attributes, each with a leading space.
  void Text(double x, double y, double size, const Label& label, absl::string_view fill = kInk,
            absl::string_view anchor = "start", absl::string_view more = "");

  // Text that reads upwards, centred at (x, y).
  void TurnedText(double x, double y, double size, const Label& label, absl::string_view fill);

  // The document, with its title in the space left at the top.
  std::string Finish(absl::string_view title, absl::string_view subtitle, absl::string_view description);

 private:
  std::string body_;
  double right_ = 0, bottom_ = 0;
};

}  // namespace attnd::bias
