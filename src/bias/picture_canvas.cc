#include "bias/picture_canvas.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bias/drawing.h"

namespace attnd::bias {
namespace {

constexpr absl::string_view kSerif = "'STIX Two Text','Latin Modern Roman',Cambria,Georgia,'DejaVu Serif',serif";
constexpr absl::string_view kSans = "Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif";

double Characters(absl::string_view utf8) {
  return static_cast<double>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// Width in the widest of the fonts that a viewer may use.
double Ems(absl::string_view utf8) {
  const auto wide = std::count_if(
      utf8.begin(), utf8.end(), [](char c) { return absl::string_view("mMwW@%").find(c) != absl::string_view::npos; });
  return 0.63 * Characters(utf8) + 0.37 * static_cast<double>(wide);
}

}  // namespace

Label Plain(absl::string_view text) { return {Escaped(text), Ems(text)}; }

Label Indexed(absl::string_view letter, std::int64_t index) {
  // dy lowers the index; every viewer supports it. Text that follows on the line must be raised again.
  return {absl::StrCat("<tspan font-style=\"italic\">", letter, "</tspan><tspan dy=\"0.28em\" font-size=\"68%\">",
                       index, "</tspan>"),
          0.6 + 0.42 * Characters(absl::StrCat(index))};
}

Label Product(std::int64_t query, std::int64_t key) {
  const Label q = Indexed("q", query), k = Indexed("k", key);
  return {absl::StrCat(q.markup, "<tspan dy=\"-0.19em\">\u00b7</tspan>", k.markup), q.ems + 0.3 + k.ems};
}

std::string Number(double value) { return absl::StrFormat("%.6g", value); }

void Canvas::Add(absl::string_view element) { absl::StrAppend(&body_, element, "\n"); }

void Canvas::Reach(double right, double bottom) {
  right_ = std::max(right_, right);
  bottom_ = std::max(bottom_, bottom);
}

void Canvas::Rect(double x, double y, double width, double height, absl::string_view attributes) {
  Add(absl::StrCat("<rect x=\"", Number(x), "\" y=\"", Number(y), "\" width=\"", Number(width), "\" height=\"",
                   Number(height), "\" ", attributes, "/>"));
  Reach(x + width, y + height);
}

void Canvas::Text(double x, double y, double size, const Label& label, absl::string_view fill, absl::string_view anchor,
                  absl::string_view more) {
  const double part = anchor == "start" ? 1.0 : anchor == "middle" ? 0.5 : 0.0;
  Reach(x + part * label.ems * size, y + 0.3 * size);
  const std::string place = anchor == "start" ? "" : absl::StrCat(" text-anchor=\"", anchor, "\"");
  Add(absl::StrCat("<text x=\"", Number(x), "\" y=\"", Number(y), "\" font-size=\"", Number(size), "\" fill=\"", fill,
                   "\"", place, more, ">", label.markup, "</text>"));
}

void Canvas::TurnedText(double x, double y, double size, const Label& label, absl::string_view fill) {
  Reach(x, y + label.ems * size / 2);
  Add(absl::StrCat("<text x=\"", Number(x), "\" y=\"", Number(y), "\" font-size=\"", Number(size), "\" fill=\"", fill,
                   "\" text-anchor=\"middle\" class=\"s\" transform=\"rotate(-90 ", Number(x), " ", Number(y), ")\">",
                   label.markup, "</text>"));
}

std::string Canvas::Finish(absl::string_view title, absl::string_view subtitle, absl::string_view description) {
  const double room = std::max(right_ - kMargin, 480.0);
  Label heading = Plain(title);
  heading.ems *= 1.12;  // in bold
  const Label below = Plain(subtitle);
  const auto fitting = [room](double size, const Label& label) {
    return std::max(10.0, std::min(size, room / label.ems));
  };
  Text(kMargin, 40, fitting(20, heading), heading, kInk, "start", " class=\"s\" font-weight=\"600\"");
  Text(kMargin, 62, fitting(13.5, below), below, kGrey, "start", " class=\"s\"");
  const std::string width = absl::StrFormat("%.0f", right_ + kMargin),
                    height = absl::StrFormat("%.0f", bottom_ + kMargin);
  return absl::StrCat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", height, "\" viewBox=\"0 0 ", width,
      " ", height, "\" role=\"img\" font-family=\"", kSerif, "\">\n<title>", Escaped(title), "</title>\n<desc>",
      Escaped(description), "</desc>\n<style>.s{font-family:", kSans, "}.m{font-family:", kSerif,
      "}</style>\n<defs><pattern id=\"attnd-masked\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#ffffff\"/><path d=\"M3 0v6\" "
      "stroke=\"#b4bac4\" stroke-width=\"1.5\"/></pattern></defs>\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"#ffffff\"/>\n",
      body_, "</svg>\n");
}

}  // namespace attnd::bias
