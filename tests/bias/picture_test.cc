// The pictures: what they must show, whatever they look like.
#include "bias/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "bias/bias_table.h"
#include "bias/picture_colour.h"
#include "bias/picture_scale.h"
#include "svg_paint.h"

namespace attnd::bias {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Shape {
  std::int64_t queries, keys;
  bool bidirectional = false;
  std::int64_t query_start = 0, key_start = 0;
};

void PrintTo(const Shape& shape, std::ostream* out) {
  *out << shape.queries << " queries from " << shape.query_start << ", " << shape.keys << " keys from "
       << shape.key_start << (shape.bidirectional ? ", bidirectional" : "");
}

// A T5 table whose value in bucket b is (b - 1) / 2 in head 0, and ten times that in head 1.
BiasTable T5(std::int64_t num_buckets, std::int64_t max_distance, bool bidirectional) {
  std::vector<float> learned;
  for (std::int64_t b = 0; b < num_buckets; ++b) {
    learned.push_back(static_cast<float>(b - 1) / 2);
    learned.push_back(static_cast<float>(b - 1) * 5);
  }
  return *BiasTable::Create(2, T5Rule{num_buckets, max_distance, bidirectional, learned});
}

// A window over a table, with its first `heads` heads.
class Picture {
 public:
  Picture(const Shape& shape, const BiasTable& table, std::size_t heads = 1) : values_(heads, std::vector<float>()) {
    for (std::int64_t q = 0; q < shape.queries; ++q) {
      for (std::int64_t k = 0; k < shape.keys; ++k) Add(table, shape.query_start + q - shape.key_start - k);
    }
    window.title = "book version 1, decoder";
    window.query_start = shape.query_start;
    window.key_start = shape.key_start;
    window.queries = shape.queries;
    window.keys = shape.keys;
    window.causal = !table.bidirectional();
    window.buckets = buckets_;
    for (std::size_t h = 0; h < heads; ++h) window.heads.push_back({static_cast<std::int64_t>(h), values_[h]});
  }
  PictureWindow window;

 private:
  void Add(const BiasTable& table, std::int64_t offset) {
    const bool masked = !table.bidirectional() && offset < 0;
    const std::optional<std::int64_t> bucket = table.Bucket(offset);
    if (bucket.has_value()) buckets_.push_back(masked ? -1 : static_cast<std::int32_t>(*bucket));
    if (bucket.has_value() && !masked) window.bucket_ranges[buckets_.back()] = table.OffsetsOf(*bucket);
    for (std::size_t h = 0; h < values_.size(); ++h) {
      values_[h].push_back(masked ? 0 : table.Value(static_cast<std::int64_t>(h), offset));
    }
  }

  std::vector<std::int32_t> buckets_;
  std::vector<std::vector<float>> values_;
};

Picture Book(std::int64_t queries, std::int64_t keys) { return {{queries, keys}, T5(4, 5, false)}; }

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(BucketGridText, IsTheBooksGrid) {
  EXPECT_EQ(BucketGridText(Book(6, 6).window, {}),
            "book version 1, decoder: buckets\n"
            "\n"
            "    k0 k1 k2 k3 k4 k5\n"
            "q0  u0  \u00b7  \u00b7  \u00b7  \u00b7  \u00b7\n"
            "q1  u1 u0  \u00b7  \u00b7  \u00b7  \u00b7\n"
            "q2  u2 u1 u0  \u00b7  \u00b7  \u00b7\n"
            "q3  u2 u2 u1 u0  \u00b7  \u00b7\n"
            "q4  u3 u2 u2 u1 u0  \u00b7\n"
            "q5  u3 u3 u2 u2 u1 u0\n"
            "\n"
            "offset = query position - key position\n"
            "u0: 0   u1: 1   u2: 2 to 3   u3: from 4 on\n"
            "\u00b7: masked, the key comes after the query\n");
}

TEST(HeatMapText, ShowsValues) {
  EXPECT_EQ(HeatMapText(Book(2, 2).window, {}),
            "book version 1, decoder, head 0: bias\n"
            "\n"
            "       k0    k1\n"
            "q0  -0.50     \u00b7\n"
            "q1      0 -0.50\n"
            "\n"
            "values from -0.50 to 0\n"
            "\u00b7: masked, the key comes after the query\n");
}

TEST(HeatMapText, ShowsHeadsOneAfterTheOther) {
  EXPECT_EQ(HeatMapText(Picture({1, 2, false, 1}, T5(4, 5, false), 2).window, {}),
            "book version 1, decoder, 2 heads: bias\n"
            "\n"
            "head 0\n"
            "       k0    k1\n"
            "q1      0 -0.50\n"
            "\n"
            "head 1\n"
            "       k0    k1\n"
            "q1      0 -5.00\n"
            "\n"
            "values from -5.00 to 0\n");
}

TEST(Text, ColoursOnlyWhenAsked) {
  const Picture picture = Book(6, 6);
  EXPECT_THAT(BucketGridText(picture.window, {}), Not(HasSubstr("\x1b")));
  const std::string coloured = BucketGridText(picture.window, {.colour = true});
  EXPECT_THAT(coloured, HasSubstr("\x1b[48;2;68;1;84m\x1b[38;2;255;255;255m u0\x1b[0m"));
  // The visible cells, and the legend. A colour of the ground never comes without one of the text.
  EXPECT_EQ(Count(coloured, "\x1b[0m"), 21 + 4);
  EXPECT_EQ(Count(coloured, "\x1b[48;2;"), 21 + 4);
  EXPECT_EQ(Count(coloured, "\x1b[38;2;"), 21 + 4);
}

TEST(Text, IsThinnedOutToFit) {
  const std::string text = BucketGridText(Picture({512, 512}, T5(32, 128, false)).window, {.columns = 80});
  EXPECT_THAT(text, HasSubstr("queries and keys, to fit the terminal"));
  std::size_t longest = 0, start = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const std::string line = text.substr(start, end - start);
    longest = std::max(longest, line.size() - static_cast<std::size_t>(Count(line, "\u00b7")));
    start = end + 1;
  }
  EXPECT_LE(longest, 80U);
  EXPECT_GT(longest, 60U);
}

TEST(Words, SayWhatATableHoldsAndNotWhatTheWindowShows) {
  const auto words = [](const BiasTable& table, std::int64_t bucket) { return InWords(table.OffsetsOf(bucket)); };
  const BiasTable causal = T5(4, 5, false), both = T5(8, 5, true);
  EXPECT_EQ(words(causal, 0), "from 0 down");
  EXPECT_EQ(words(causal, 1), "1");
  EXPECT_EQ(words(causal, 2), "2 to 3");
  EXPECT_EQ(words(causal, 3), "from 4 on");
  EXPECT_EQ(words(both, 0), "0");
  EXPECT_EQ(words(both, 5), "-1");
  EXPECT_EQ(words(both, 6), "-2 to -3");
  EXPECT_EQ(words(both, 7), "from -4 down");
}

TEST(Words, AreOfTheWindowWhereTheTableIsNotKnown) {
  Picture picture = Book(6, 6);
  picture.window.bucket_ranges.clear();
  EXPECT_THAT(BucketGridText(picture.window, {}),
              HasSubstr("in this window:\nu0: 0   u1: 1   u2: 2 to 3   u3: 4 to 5\n"));
  EXPECT_THAT(BucketGridSvg(picture.window), HasSubstr("offsets in this window"));
  EXPECT_THAT(BucketGridSvg(Book(6, 6).window), Not(HasSubstr("in this window")));
}

TEST(Keys, AfterTheQueryHaveAScaleOfTheirOwn) {
  const auto keys = BucketKeys(Picture({4, 4}, T5(8, 5, true)).window);
  EXPECT_EQ(keys.at(0).colour, Sequential(0));
  EXPECT_EQ(keys.at(5).colour, Opposite(0));
  // A causal table without its mask puts all of them into bucket 0, which is the query's own.
  Picture unmasked = Book(3, 9);
  unmasked.window.causal = false;
  EXPECT_FALSE(BucketKeys(unmasked.window).at(0).after());
}

class SvgTest : public testing::TestWithParam<Shape> {};

TEST_P(SvgTest, ShowsTheColourOfEachVisibleCellAndNoneOfMaskedOnes) {
  const Shape shape = GetParam();
  const Picture picture(shape, T5(32, 128, shape.bidirectional), 2);
  const PictureWindow& window = picture.window;
  const auto keys = BucketKeys(window);
  const ValueScale scale(window);
  const std::string buckets = BucketGridSvg(window), values = HeatMapSvg(window);
  const Paint of_buckets(buckets, 0), of_head_0(values, 0), of_head_1(values, 1);
  // Of a large window some cells, among them those beside each edge.
  const auto step = [](std::int64_t count) { return count <= 60 ? 1 : 7; };
  for (std::int64_t q = 0; q < window.queries; q += step(window.queries)) {
    for (std::int64_t k = 0; k < window.keys; k += step(window.keys)) {
      const std::int64_t offset = window.Offset(q, k);
      const std::size_t cell = window.CellOf(offset);
      const bool masked = window.Masked(offset);
      const auto y = static_cast<double>(q), x = static_cast<double>(k);
      ASSERT_EQ(of_buckets.Colour(y, x), masked ? "" : Hex(keys.at(window.buckets[cell]).colour)) << q << ", " << k;
      ASSERT_EQ(of_head_0.Colour(y, x), masked ? "" : Hex(scale.ColourOf(window.heads[0].values[cell])));
      ASSERT_EQ(of_head_1.Colour(y, x), masked ? "" : Hex(scale.ColourOf(window.heads[1].values[cell])));
    }
  }
  EXPECT_EQ(Count(buckets, "fill=\"url(#attnd-masked)\""), window.HasMasked() ? 2 : 0) << "the grid and the legend";
  EXPECT_LT(buckets.size(), 250'000U);
  EXPECT_LT(values.size(), 250'000U);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SvgTest,
                         testing::Values(Shape{1, 1}, Shape{6, 6}, Shape{3, 9, true}, Shape{20, 20}, Shape{41, 40},
                                         Shape{150, 170, true}, Shape{64, 64, true}, Shape{128, 300, true},
                                         Shape{300, 5}, Shape{512, 512}, Shape{512, 512, true}, Shape{1, 64, false, 63},
                                         Shape{8, 512, false, 500}, Shape{70, 700, true, 40, 300},
                                         Shape{5, 5, false, 0, 90}));

TEST(Svg, IsSmallWhereThereAreNoLabels) {
  const Picture picture({512, 512, true}, T5(32, 128, true));
  EXPECT_LT(BucketGridSvg(picture.window).size(), 40'000U);
  EXPECT_LT(HeatMapSvg(picture.window).size(), 40'000U);
  // The worst that there is: no two neighbouring offsets have one colour.
  std::vector<float> values;
  for (int i = 0; i < 4000; ++i) values.push_back(static_cast<float>(i % 7) - 3);
  const BiasTable uneven = *BiasTable::Create(1, PerOffsetRule{-2000, values});
  for (const int n : {45, 100, 160, 200, 512}) {
    EXPECT_LT(HeatMapSvg(Picture({n, n, true}, uneven).window).size(), 260'000U) << n;
  }
}

// All sizes of text in a document.
std::vector<double> TextSizes(const std::string& svg) {
  std::vector<double> sizes;
  const std::string name = " font-size=\"";
  for (std::size_t at = svg.find(name); at != std::string::npos; at = svg.find(name, at + 1)) {
    const std::string value = svg.substr(at + name.size(), 8);
    if (value.find('%') > value.find('"')) sizes.push_back(std::strtod(value.c_str(), nullptr));
  }
  return sizes;
}

// How many cells the first head's panel has labels in: what its two groups of text hold.
int Labels(const std::string& svg) {
  int labels = 0;
  for (const char* ink : {"<g fill=\"#000000\"", "<g fill=\"#ffffff\""}) {
    const std::size_t start = svg.find(ink);
    if (start != std::string::npos) labels += Count(svg.substr(start, svg.find("</g>", start) - start), "<text");
  }
  return labels;
}

TEST(Svg, LabelsCellsAsLongAsTheyAreLegible) {
  for (const int n : {24, 64})
    EXPECT_EQ(Labels(BucketGridSvg(Picture({n, n}, T5(32, 128, false)).window)), n * (n + 1) / 2);
  EXPECT_EQ(Labels(HeatMapSvg(Picture({24, 24}, T5(32, 128, false)).window)), 24 * 25 / 2);
  EXPECT_EQ(Labels(BucketGridSvg(Picture({100, 100}, T5(32, 128, false)).window)), 0);
  EXPECT_EQ(Labels(HeatMapSvg(Picture({64, 64}, T5(32, 128, false)).window)), 0);
  for (int n = 1; n < 130; ++n) {
    const Picture picture({n, 2 * n, true}, T5(32, 128, true), 2);
    for (const std::string& svg : {BucketGridSvg(picture.window), HeatMapSvg(picture.window)}) {
      const std::vector<double> sizes = TextSizes(svg);
      ASSERT_FALSE(sizes.empty());
      ASSERT_GE(*std::min_element(sizes.begin(), sizes.end()), 7) << n;
    }
  }
}

TEST(BucketGridSvg, LabelsTheBooksGrid) {
  const std::string svg = BucketGridSvg(Book(6, 6).window);
  const std::string u = "<tspan font-style=\"italic\">u</tspan><tspan dy=\"0.28em\" font-size=\"68%\">";
  // In cells, and once in the legend.
  EXPECT_EQ(Count(svg, u + "0<"), 6 + 1);
  EXPECT_EQ(Count(svg, u + "1<"), 5 + 1);
  EXPECT_EQ(Count(svg, u + "2<"), 4 + 3 + 1);
  EXPECT_EQ(Count(svg, u + "3<"), 2 + 1 + 1);
  for (const char* words : {">2 to 3<", ">from 4 on<", ">masked: later key<", ">query position<", ">key position<",
                            "<title>book version 1, decoder: buckets</title>", "u3: from 4 on.</desc>"}) {
    EXPECT_THAT(svg, HasSubstr(words));
  }
}

TEST(BucketGridSvg, NamesPositionsAndNotRows) {
  const std::string svg = BucketGridSvg(Picture({200, 200, true, 1000, 40}, T5(32, 128, true)).window);
  for (const char* position : {">1024<", ">1184<", ">64<", ">224<"}) EXPECT_THAT(svg, HasSubstr(position));
  EXPECT_THAT(svg, Not(HasSubstr(">1000<")));
  EXPECT_THAT(BucketGridSvg(Picture({3, 3, true, 77, 40}, T5(32, 128, true)).window), HasSubstr(">79</tspan>"));
}

TEST(HeatMapSvg, HasOnePanelForEachHeadOnOneScale) {
  const Picture picture({6, 6}, T5(4, 5, false), 2);
  const std::string svg = HeatMapSvg(picture.window);
  EXPECT_EQ(Count(svg, ">head 0<") + Count(svg, ">head 1<"), 2);
  // The greatest value of head 1 ends the scale, and that of head 0 is a tenth of it.
  EXPECT_EQ(Paint(svg, 1).Colour(5, 0), Hex(Diverging(1)));
  EXPECT_EQ(Paint(svg, 0).Colour(5, 0), Hex(ValueScale::ColourOfShade(3)));
  EXPECT_THAT(HeatMapSvg(Book(6, 6).window), HasSubstr("decoder, head 0: bias"));
}

TEST(HeatMapSvg, ShowsZeroAsNeitherGroundNorMask) {
  const std::string svg = HeatMapSvg(Book(2, 2).window);
  EXPECT_EQ(Paint(svg, 0).Colour(1, 0), "#dddddd");
  EXPECT_THAT(svg, HasSubstr(">0</text>"));
  EXPECT_THAT(svg, HasSubstr("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"));
}

TEST(HeatMapSvg, NoOtherValueHasTheColourOfZero) {
  const ValueScale scale(Book(6, 6).window);
  EXPECT_EQ(scale.ColourOf(0), Diverging(0));
  for (const double value : {1e-9, -1e-9}) {
    EXPECT_FALSE(scale.ColourOf(value) == Diverging(0));
    EXPECT_EQ(scale.ColourOf(value), ValueScale::ColourOfShade(value < 0 ? -1 : 1));
  }
  EXPECT_EQ(scale.ColourOf(scale.largest()), Diverging(1));
  EXPECT_EQ(scale.ColourOf(-scale.largest()), Diverging(-1));
}

// A server of anybody's may send them.
TEST(HeatMapSvg, FiniteValuesAloneDecideTheScale) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  PictureWindow window;
  window.queries = window.keys = 2;
  const std::vector<float> values = {2, kInfinity, kNan, 2};  // offsets 0, -1 and 1
  window.heads = {{0, values}};
  const ValueScale scale(window);
  EXPECT_EQ(scale.least(), 2);
  EXPECT_EQ(scale.greatest(), 2);
  EXPECT_EQ(scale.ColourOf(-kInfinity), Diverging(-1));
  EXPECT_EQ(scale.Written(-kNan), "nan");
  const std::string svg = HeatMapSvg(window);
  EXPECT_EQ(Paint(svg, 0).Colour(0, 1), Hex(Diverging(1)));
  EXPECT_EQ(Paint(svg, 0).Colour(1, 0), Hex(kNotANumber));
  const std::vector<float> none = {kNan, kInfinity, -kInfinity, kNan};
  window.heads = {{0, none}};
  EXPECT_EQ(ValueScale(window).largest(), 1);
}

TEST(HeatMapSvg, ScaleIsSymmetricAndSaysItsEnds) {
  const std::string svg = HeatMapSvg(Book(6, 6).window);  // -0.5 to 1
  for (const char* words : {">1</text>", ">0</text>", ">\u22121</text>", ">\u22120.50 to 1.00</text>"}) {
    EXPECT_THAT(svg, HasSubstr(words));
  }
}

TEST(HeatMapSvg, DrawsTablesWithoutBuckets) {
  const BiasTable alibi = *BiasTable::Create(2, AlibiRule{false, {0.5F, 0.001F}});
  const std::string svg = HeatMapSvg(Picture({9, 9}, alibi).window);
  EXPECT_THAT(svg, HasSubstr(">\u22124.00</text>"));
  const ValueScale scale(Picture({9, 9}, alibi, 2).window);
  EXPECT_EQ(scale.Written(-0.008), "-0.01") << "the digits follow the largest of all heads";
}

TEST(Values, AreWrittenWithDigitsThatFitTheLargest) {
  for (const auto& [slope, written] : std::vector<std::pair<float, std::string>>{{1e-7F, "-1.0e-07"},
                                                                                 {0.0039F, "-0.0039"},
                                                                                 {0.5F, "-0.50"},
                                                                                 {250, "-250.0"},
                                                                                 {4096, "-4096"},
                                                                                 {3e6F, "-3.0e+06"}}) {
    const ValueScale scale(Picture({2, 2}, *BiasTable::Create(1, AlibiRule{false, {slope}})).window);
    EXPECT_EQ(scale.Written(-static_cast<double>(slope)), written);
    EXPECT_EQ(scale.Written(0), "0");
  }
}

TEST(Svg, IsAsWideAsTheWidestTitle) {
  Picture picture = Book(1, 1);
  picture.window.title = std::string(128, 'W');  // 1.1 times as wide as high in a bold sans-serif
  const std::string svg = BucketGridSvg(picture.window);
  const std::string width = " width=\"";
  EXPECT_GT(std::atof(svg.c_str() + svg.find(width) + width.size()), 128 * 1.1 * 10);
}

TEST(Svg, EscapesItsTitle) {
  Picture picture = Book(2, 2);
  picture.window.title = "a<b>&\"c\"";
  for (const std::string& svg : {BucketGridSvg(picture.window), HeatMapSvg(picture.window)}) {
    EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;"));
    EXPECT_THAT(svg, Not(HasSubstr("a<b>")));
  }
}

// WCAG 2.2 asks for 4.5 of text; the library's own pairs of colours are looked at in the Python client's tests.
TEST(Colours, LeaveTextReadable) {
  EXPECT_NEAR(Contrast(kBlack, kWhite), 21, 1e-9);
  EXPECT_NEAR(Contrast({0x77, 0x77, 0x77}, kWhite), 4.48, 0.01) << "as WCAG's tools say";
  for (int i = 0; i <= 1000; ++i) {
    for (const Colour colour : {Sequential(i / 1000.0), Opposite(i / 1000.0), Diverging(i / 500.0 - 1)}) {
      ASSERT_GE(Contrast(colour, InkOn(colour)), 4.5) << Hex(colour);
    }
  }
}

}  // namespace
}  // namespace attnd::bias
