// Which colour an SVG of picture.h shows in each cell, read from its paths.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace attnd::bias {

struct Point {
  double x, y;
};

// The outlines of a path of M, H, V, L, h, v and z.
inline std::vector<std::vector<Point>> Outlines(const std::string& path) {
  std::vector<std::vector<Point>> outlines;
  Point at{0, 0};
  const char* next = path.c_str();
  const auto number = [&next] {
    char* end = nullptr;
    const double value = std::strtod(next, &end);
    next = end;
    return value;
  };
  while (*next != '\0') {
    switch (*next++) {
      case 'M':
        outlines.emplace_back();
        at.x = number();
        at.y = number();
        break;
      case 'L':
        at.x = number();
        at.y = number();
        break;
      case 'H':
        at.x = number();
        break;
      case 'V':
        at.y = number();
        break;
      case 'h':
        at.x += number();
        break;
      case 'v':
        at.y += number();
        break;
      case 'z':
        continue;
      default:
        return {};
    }
    outlines.back().push_back(at);
  }
  return outlines;
}

// By the number of edges that a ray to the right crosses.
inline bool Inside(const std::vector<Point>& outline, Point p) {
  bool inside = false;
  for (std::size_t i = 0; i < outline.size(); ++i) {
    const Point a = outline[i], b = outline[(i + 1) % outline.size()];
    if ((a.y > p.y) == (b.y > p.y)) continue;
    if (p.x < a.x + (p.y - a.y) / (b.y - a.y) * (b.x - a.x)) inside = !inside;
  }
  return inside;
}

// A panel's paths in their order, with their colours: what stands in its group with a scale, in which a cell is 1 by 1.
class Paint {
 public:
  // Panel number `panel` of the document, from 0.
  Paint(const std::string& svg, int panel) {
    std::size_t start = 0;
    for (int i = 0; i <= panel; ++i) start = svg.find(") scale(", start) + 1;
    const std::string group = svg.substr(start, svg.find("</g>", start) - start);
    const std::string fill = "<path fill=\"", d = "\" d=\"";
    for (std::size_t at = group.find(fill); at != std::string::npos; at = group.find(fill, at + 1)) {
      const std::size_t path = group.find(d, at) + d.size();
      const std::string colour = group.substr(at + fill.size(), path - d.size() - at - fill.size());
      paths_.emplace_back(colour, Outlines(group.substr(path, group.find('"', path) - path)));
    }
  }

  // Of the last path over the middle of the cell; "" if there is none.
  std::string Colour(double query, double key) const {
    std::string colour;
    for (const auto& [fill, outlines] : paths_) {
      for (const std::vector<Point>& outline : outlines) {
        if (Inside(outline, {key + 0.5, query + 0.5})) colour = fill;
      }
    }
    return colour;
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::vector<Point>>>> paths_;
};

}  // namespace attnd::bias
