#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bias/comparison.h"
#include "bias/number_text.h"

namespace attnd::bias {
namespace {

// "A", "B", ... for up to kMaxSources sources.
std::string Letter(std::size_t s) { return std::string(1, static_cast<char>('A' + s)); }

std::string Value(float value) { return RoundedText(static_cast<double>(value), 4); }

// Values of one head, by offset.
struct Curve {
  std::int64_t first;
  const std::vector<float>& values;

  bool Shows(std::int64_t offset) const { return offset >= first; }
  float At(std::int64_t offset) const { return values[static_cast<std::size_t>(offset - first)]; }

  // "-0.5", or "-8 .. -4": the lowest and the highest value in a range.
  std::string Over(OffsetSpan range) const {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(range.first - first);
    const auto [least, most] =
        std::minmax_element(begin, begin + static_cast<std::ptrdiff_t>(range.last - range.first + 1));
    return Value(*least) == Value(*most) ? Value(*least) : absl::StrCat(Value(*least), " .. ", Value(*most));
  }

  // The weight of a key at `offset` relative to a key at offset 0 with the same q.k.
  std::string Weight(std::int64_t offset) const {
    return absl::StrCat("x", RoundedText(std::exp(static_cast<double>(At(offset)) - static_cast<double>(At(0))), 3));
  }
};

// Lines of right-aligned cells, in columns as wide as their widest cell.
class Lines {
 public:
  void Add(std::vector<std::string> cells) { lines_.emplace_back("", std::move(cells)); }
  void Say(std::string text) { lines_.emplace_back(std::move(text), std::vector<std::string>{}); }

  std::string Draw() const {
    std::vector<std::size_t> widths;
    for (const auto& [text, cells] : lines_) {
      widths.resize(std::max(widths.size(), cells.size()));
      for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
    }
    std::string drawn;
    for (const auto& [text, cells] : lines_) {
      absl::StrAppend(&drawn, text);
      for (std::size_t i = 0; i < cells.size(); ++i) absl::StrAppendFormat(&drawn, "  %*s", widths[i], cells[i]);
      absl::StrAppend(&drawn, "\n");
    }
    return drawn;
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::string>>> lines_;  // text, or cells
};

std::string Shown(OffsetSpan range) {
  return range.first == range.last ? absl::StrCat(range.first) : absl::StrCat(range.first, " .. ", range.last);
}

// The curves that a panel shows; nullopt for a source without that head.
std::vector<std::optional<Curve>> Curves(const Comparison& comparison, std::int64_t panel) {
  std::vector<std::optional<Curve>> curves;
  for (std::size_t s = 0; s < comparison.sources().size(); ++s) {
    curves.emplace_back();
    if (const std::optional<std::int64_t> head = comparison.HeadOf(s, panel); head.has_value()) {
      curves.back().emplace(Curve{comparison.FirstOffset(s), comparison.Values(s, *head)});
    }
  }
  return curves;
}

// A line with the result of `cell` for each source that shows `offset`.
template <typename Cell>
std::vector<std::string> Line(std::string name, const std::vector<std::optional<Curve>>& curves, std::int64_t offset,
                              const Cell& cell) {
  std::vector<std::string> cells = {std::move(name)};
  for (const std::optional<Curve>& curve : curves) {
    cells.push_back(!curve.has_value() ? "no such head" : curve->Shows(offset) ? cell(*curve) : "masked");
  }
  return cells;
}

// The shown offsets within the trained length, and those beyond it on each side.
std::vector<std::pair<std::string, OffsetSpan>> Parts(const Comparison& comparison) {
  const std::int64_t least = comparison.min_offset(), most = comparison.max_offset(), length = comparison.length();
  std::vector<std::pair<std::string, OffsetSpan>> parts = {
      {"within", {std::max(least, 1 - length), std::min(most, length - 1)}}};
  if (most >= length) parts.push_back({"beyond", {length, most}});
  if (least <= -length) parts.push_back({"beyond, keys after", {least, -length}});
  return parts;
}

std::string PanelText(const Comparison& comparison, std::int64_t panel) {
  const std::vector<std::optional<Curve>> curves = Curves(comparison, panel);
  Lines lines;
  std::vector<std::string> heading = {"offset"};
  for (std::size_t s = 0; s < curves.size(); ++s) heading.push_back(Letter(s));
  lines.Add(heading);
  for (const OffsetSpan range : comparison.Ranges()) {
    const std::int64_t length = comparison.trained_length().value_or(0);
    if (length > 0 && (range.first == length || range.first == 1 - length)) {
      lines.Say(absl::StrCat("  ---- trained length ", length, " ----"));
    }
    lines.Add(Line(Shown(range), curves, range.first, [&](const Curve& curve) { return curve.Over(range); }));
  }
  lines.Say("  weight against offset 0");
  for (const std::int64_t offset : comparison.Landmarks()) {
    lines.Add(Line(absl::StrCat(offset), curves, offset, [&](const Curve& curve) { return curve.Weight(offset); }));
  }
  if (comparison.trained_length().has_value()) {
    lines.Say("  lowest and highest");
    for (const auto& part : Parts(comparison)) {
      const OffsetSpan range = part.second;
      lines.Add(Line(part.first, curves, range.last, [&](const Curve& curve) {
        return curve.Over({std::max(range.first, curve.first), range.last});
      }));
    }
  }
  return absl::StrCat("\n", comparison.PanelName(panel), "\n", lines.Draw());
}

// The number of different values that a head of source `s` has over the shown offsets; the most of any head.
std::size_t Distinct(const Comparison& comparison, std::size_t s) {
  std::size_t most = 0;
  for (const std::int64_t panel : comparison.panels()) {
    const std::optional<std::int64_t> head = comparison.HeadOf(s, panel);
    if (!head.has_value()) continue;
    const std::vector<float>& values = comparison.Values(s, *head);
    most = std::max(most, std::set<float>(values.begin(), values.end()).size());
  }
  return most;
}

std::string Summary(const Comparison& comparison, std::size_t s) {
  const ComparedSource& source = comparison.sources()[s];
  const std::int64_t parameters = ParametersPerHead(source.table);
  const std::int64_t offsets = comparison.max_offset() - comparison.FirstOffset(s) + 1;
  std::string text = absl::StrCat(Letter(s), "  ", source.label, "\n   ", Described(source), "\n   a head has ",
                                  parameters, parameters == 1 ? " parameter" : " parameters", " and ",
                                  Distinct(comparison, s), " different values at ", offsets, " offsets\n   ");
  if (const std::optional<std::int64_t> from = ConstantFrom(source.table); !from.has_value()) {
    return absl::StrCat(text, "never saturates: it falls by its slope with each token\n");
  } else if (*from > comparison.max_offset()) {
    return absl::StrCat(text, "saturates at offset ", *from, ", farther than shown\n");
  } else {
    return absl::StrCat(text, "saturates at offset ", *from, ": one value from there on\n");
  }
}

}  // namespace

std::string ComparisonText(const Comparison& comparison) {
  std::string text = absl::StrCat("bias by offset, query position - key position, from ", comparison.min_offset(),
                                  " to ", comparison.max_offset());
  if (const std::optional<std::int64_t> length = comparison.trained_length(); length.has_value()) {
    absl::StrAppend(&text, "; trained on ", *length, " tokens, so on offsets up to ", *length - 1);
  }
  absl::StrAppend(&text, "\n\n");
  for (std::size_t s = 0; s < comparison.sources().size(); ++s) absl::StrAppend(&text, Summary(comparison, s));
  absl::StrAppend(
      &text,
      "\nweight against offset 0: e^(bias - bias at offset 0), what a key weighs against one at the query's "
      "own\nposition that has the same q.k\n");
  for (const std::int64_t panel : comparison.panels()) absl::StrAppend(&text, PanelText(comparison, panel));
  return text;
}

}  // namespace attnd::bias
