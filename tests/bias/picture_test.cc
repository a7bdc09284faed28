// The pictures: what they must show, whatever they look like.
#include "bias/picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "bias/bias_table.h"

namespace attnd::bias {
namespace {

using testing::HasSubstr;
using testing::Not;

// A window over a T5 table of one head whose value in bucket b is (b - 1) / 2.
class Picture {
 public:
  Picture(std::int64_t queries, std::int64_t keys, std::int64_t num_buckets, std::int64_t max_distance,
          bool bidirectional) {
    std::vector<float> learned(static_cast<std::size_t>(num_buckets));
    for (std::size_t b = 0; b < learned.size(); ++b) learned[b] = (static_cast<float>(b) - 1) / 2;
    const BiasTable table = *BiasTable::Create(1, T5Rule{num_buckets, max_distance, bidirectional, learned});
    for (std::int64_t q = 0; q < queries; ++q) {
      for (std::int64_t k = 0; k < keys; ++k) {
        const bool masked = !bidirectional && k > q;
        offsets_.push_back(q - k);
        buckets_.push_back(masked ? -1 : static_cast<std::int32_t>(*table.Bucket(q - k)));
        values_.push_back(masked ? 0 : table.Value(0, q - k));
      }
    }
    window = {"book", 0, 0, queries, keys, !bidirectional, offsets_, buckets_, values_, 0};
  }
  PictureWindow window;

 private:
  std::vector<std::int64_t> offsets_;
  std::vector<std::int32_t> buckets_;
  std::vector<float> values_;
};

// How often each cell is painted, read from the runs ("M<key> <query>h<cells>v1h-<cells>z") of an SVG's paths.
std::map<std::pair<int, int>, int> Painted(const std::string& svg) {
  std::map<std::pair<int, int>, int> painted;
  for (std::size_t at = svg.find('M'); at != std::string::npos; at = svg.find('M', at + 1)) {
    int key = 0, query = 0, cells = 0, back = 0;
    if (std::sscanf(svg.c_str() + at, "M%d %dh%dv1h-%dz", &key, &query, &cells, &back) != 4) continue;
    EXPECT_EQ(cells, back);
    for (int i = 0; i < cells; ++i) ++painted[{query, key + i}];
  }
  return painted;
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(BucketGridText, IsTheBooksGrid) {
  EXPECT_EQ(BucketGridText(Picture(6, 6, 4, 5, false).window, {}),
            "book\n"
            "\n"
            "    k0 k1 k2 k3 k4 k5\n"
            "q0  u0\n"
            "q1  u1 u0\n"
            "q2  u2 u1 u0\n"
            "q3  u2 u2 u1 u0\n"
            "q4  u3 u2 u2 u1 u0\n"
            "q5  u3 u3 u2 u2 u1 u0\n");
}

TEST(HeatMapText, ShowsValues) {
  EXPECT_EQ(HeatMapText(Picture(2, 2, 4, 5, false).window, {}),
            "book\n"
            "\n"
            "       k0    k1\n"
            "q0  -0.50\n"
            "q1   0.00 -0.50\n");
}

TEST(Text, ColoursOnlyWhenAsked) {
  const Picture picture(6, 6, 4, 5, false);
  EXPECT_THAT(BucketGridText(picture.window, {}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(BucketGridText(picture.window, {.colour = true}), HasSubstr("\x1b[48;2;68;1;84m"));
  EXPECT_EQ(Count(BucketGridText(picture.window, {.colour = true}), "\x1b[0m"), 21);
}

TEST(Text, IsThinnedOutToFit) {
  const std::string text = BucketGridText(Picture(512, 512, 32, 128, false).window, {.columns = 80});
  EXPECT_THAT(text, HasSubstr("th query and key, to fit the terminal"));
  std::size_t longest = 0, start = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    longest = std::max(longest, end - start);
    start = end + 1;
  }
  EXPECT_LE(longest, 80U);
  EXPECT_GT(longest, 60U);
}

struct Size {
  std::int64_t queries, keys;
  bool bidirectional;
};

class SvgTest : public testing::TestWithParam<Size> {};

TEST_P(SvgTest, PaintsEachVisibleCellOnceAndNoOther) {
  const auto [queries, keys, bidirectional] = GetParam();
  const Picture picture(queries, keys, 32, 128, bidirectional);
  for (const std::string& svg : {BucketGridSvg(picture.window), HeatMapSvg(picture.window)}) {
    const auto painted = Painted(svg);
    for (int q = 0; q < queries; ++q) {
      for (int k = 0; k < keys; ++k) {
        const auto found = painted.find({q, k});
        const bool visible = bidirectional || k <= q;
        ASSERT_EQ(found == painted.end() ? 0 : found->second, visible ? 1 : 0) << q << ", " << k;
      }
    }
    EXPECT_LT(svg.size(), 500'000U);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SvgTest,
                         testing::Values(Size{1, 1, false}, Size{6, 6, false}, Size{3, 9, true}, Size{20, 20, false},
                                         Size{41, 40, false}, Size{128, 300, true}, Size{512, 512, false},
                                         Size{512, 512, true}));

TEST(BucketGridSvg, LabelsTheBooksGrid) {
  const std::string svg = BucketGridSvg(Picture(6, 6, 4, 5, false).window);
  const std::string u = "<tspan font-style=\"italic\">u</tspan><tspan dy=\"0.28em\" font-size=\"68%\">";
  // In cells, and once in the legend.
  EXPECT_EQ(Count(svg, u + "0<"), 6 + 1);
  EXPECT_EQ(Count(svg, u + "1<"), 5 + 1);
  EXPECT_EQ(Count(svg, u + "2<"), 4 + 3 + 1);
  EXPECT_EQ(Count(svg, u + "3<"), 2 + 1 + 1);
  EXPECT_THAT(svg, HasSubstr("offsets 2 to 3"));
}

TEST(Svg, EscapesItsTitle) {
  Picture picture(2, 2, 4, 5, false);
  picture.window.title = "a<b>&\"c\"";
  for (const std::string& svg : {BucketGridSvg(picture.window), HeatMapSvg(picture.window)}) {
    EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;"));
    EXPECT_THAT(svg, Not(HasSubstr("a<b>")));
  }
}

TEST(HeatMapSvg, IsGreyAtZero) {
  // Bucket 1 has value 0 and is the only one below the diagonal of 2 x 2.
  EXPECT_THAT(HeatMapSvg(Picture(2, 2, 4, 5, false).window), HasSubstr("fill=\"#dddddd\" d=\"M0 1h1v1h-1z\""));
}

}  // namespace
}  // namespace attnd::bias
