#include "bias/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "bias/source_words.h"

namespace attnd::bias {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<ComparedSource> Sources(const std::vector<std::string>& texts) {
  std::vector<ComparedSource> sources;
  for (const std::string& text : texts) {
    const absl::StatusOr<SourceWords> words = ReadSource(text);
    EXPECT_TRUE(words.ok()) << words.status();
    absl::StatusOr<WordTable> made = MakeTable(*words);
    EXPECT_TRUE(made.ok()) << made.status();
    sources.push_back({words->label, made->note, std::move(made->table), words->head});
  }
  return sources;
}

Comparison Compared(const std::vector<std::string>& texts, const ComparisonOptions& options = {}) {
  absl::StatusOr<Comparison> made = Comparison::Create(Sources(texts), options);
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

std::string Refused(const std::vector<std::string>& texts, const ComparisonOptions& options) {
  return std::string(Comparison::Create(Sources(texts), options).status().message());
}

TEST(Comparison, ShowsFourTimesWhatReachesFarthest) {
  EXPECT_EQ(Compared({"alibi:2"}).max_offset(), 512);
  EXPECT_EQ(Compared({"alibi:2", "t5:8,20"}).max_offset(), 80);
  EXPECT_EQ(Compared({"t5:8,20", "offsets:0@1,2"}, {.trained_length = 100}).max_offset(), 400);
  EXPECT_EQ(Compared({"offsets:-50@1,2"}).max_offset(), 200);
  EXPECT_EQ(Compared({"t5:8,20"}, {.max_offset = 7}).max_offset(), 7);
  EXPECT_EQ(Compared({"t5:2,1000000"}).max_offset(), Comparison::kMaxOffset);
}

TEST(Comparison, HoldsEachTablesOwnValues) {
  const Comparison compared = Compared({"t5:32,128,heads=2,bidirectional", "alibi:2", "offsets:0@3,2,1"});
  EXPECT_EQ(compared.min_offset(), -512);
  for (std::size_t s = 0; s < 3; ++s) {
    const BiasTable& table = compared.sources()[s].table;
    EXPECT_EQ(compared.FirstOffset(s), s == 0 ? -512 : 0);
    for (const std::int64_t panel : compared.panels()) {
      const std::int64_t head = *compared.HeadOf(s, panel);
      const std::vector<float>& values = compared.Values(s, head);
      ASSERT_EQ(static_cast<std::int64_t>(values.size()), 513 - compared.FirstOffset(s));
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], table.Value(head, compared.FirstOffset(s) + static_cast<std::int64_t>(i)));
      }
    }
  }
}

TEST(Comparison, MaskDecidesOnNegativeOffsets) {
  const std::vector<std::string> sources = {"t5:8,20", "alibi:1,bidirectional"};
  const Comparison causal = Compared(sources, {.negatives = Negatives::kNone});
  EXPECT_EQ(causal.min_offset(), 0);
  const Comparison own = Compared(sources);
  EXPECT_EQ(own.min_offset(), -80);
  EXPECT_EQ(own.FirstOffset(0), 0);
  EXPECT_EQ(own.FirstOffset(1), -80);
  EXPECT_EQ(Compared(sources, {.negatives = Negatives::kAll}).FirstOffset(0), -80);
}

TEST(Comparison, OneHeadIsInEveryPanel) {
  const Comparison compared = Compared({"alibi:4", "alibi:2", "t5:8,20", "alibi:8#5"});
  EXPECT_THAT(compared.panels(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(compared.HeadOf(0, 3), 3);
  EXPECT_EQ(compared.HeadOf(1, 3), std::nullopt);
  EXPECT_EQ(compared.HeadOf(2, 3), 0);
  EXPECT_EQ(compared.HeadOf(3, 3), 5);
  EXPECT_THAT(Compared({"alibi:8"}, {.heads = {7, 0}}).panels(), ElementsAre(7, 0));
  EXPECT_THAT(Compared({"alibi:8#2"}).panels(), ElementsAre(0));
}

// Buckets change nothing within a range, and ranges leave out and repeat nothing.
TEST(Comparison, RangesCoverAllOffsetsAndCutNoBucket) {
  for (const std::vector<std::string>& texts : {std::vector<std::string>{"t5:32,128", "alibi:2"},
                                                {"t5:32,128,bidirectional", "t5:7,90"},
                                                {"offsets:-3@1,2,3,4"}}) {
    const Comparison compared = Compared(texts, {.trained_length = 100});
    std::int64_t next = compared.min_offset();
    for (const OffsetSpan range : compared.Ranges()) {
      ASSERT_EQ(range.first, next);
      ASSERT_LE(range.first, range.last);
      next = range.last + 1;
      ASSERT_FALSE(range.first < 100 && range.last >= 100);
      ASSERT_FALSE(range.first <= -100 && range.last > -100);
      for (std::size_t s = 0; s < texts.size(); ++s) {
        if (texts[s][0] == 'a' || range.first < compared.FirstOffset(s)) continue;
        const BiasTable& table = compared.sources()[s].table;
        ASSERT_EQ(table.Value(0, range.first), table.Value(0, range.last)) << texts[s] << " from " << range.first;
      }
    }
    ASSERT_EQ(next, compared.max_offset() + 1);
  }
}

TEST(Comparison, LandmarksAreAroundTheTrainedLengthAndItsMultiples) {
  EXPECT_THAT(Compared({"alibi:1"}, {.trained_length = 100}).Landmarks(), ElementsAre(1, 99, 100, 200, 400, 512));
  EXPECT_THAT(Compared({"t5:8,20"}).Landmarks(), ElementsAre(1, 19, 20, 40, 80));
  EXPECT_THAT(Compared({"t5:8,20,bidirectional"}, {.max_offset = 20}).Landmarks(),
              ElementsAre(-20, -19, -1, 1, 19, 20));
}

TEST(Comparison, T5SaturatesWhereItsLastBucketBegins) {
  const std::vector<ComparedSource> sources =
      Sources({"t5:32,128", "alibi:2", "offsets:-3@1,2,3,4,5", "offsets:-9@1,2"});
  EXPECT_EQ(ConstantFrom(sources[0].table), 113);
  EXPECT_NE(*sources[0].table.Bucket(112), 31);
  EXPECT_EQ(*sources[0].table.Bucket(113), 31);
  EXPECT_EQ(ConstantFrom(sources[1].table), std::nullopt);
  EXPECT_EQ(ConstantFrom(sources[2].table), 1);
  EXPECT_EQ(ConstantFrom(sources[3].table), 0);
}

TEST(Comparison, Refusals) {
  EXPECT_THAT(Refused({}, {}), HasSubstr("sources: expected 1 to 8, got 0"));
  EXPECT_THAT(Refused(std::vector<std::string>(9, "alibi:1"), {}), HasSubstr("sources: expected 1 to 8, got 9"));
  EXPECT_THAT(Refused({"alibi:8#8"}, {}), HasSubstr("alibi:8#8: head: expected 0 to 7, got 8"));
  EXPECT_THAT(Refused({"alibi:8"}, {.heads = {8}}), HasSubstr("heads: expected 0 to 7, got 8"));
  EXPECT_THAT(Refused({"alibi:8"}, {.heads = {-1}}), HasSubstr("heads: expected 0 to 7, got -1"));
  EXPECT_THAT(Refused({"alibi:512"}, {}), HasSubstr("heads: expected at most 256 at a time, got 512"));
  EXPECT_THAT(Refused({"alibi:8"}, {.max_offset = 0}), HasSubstr("max_offset: expected 1 to 1048576, got 0"));
  EXPECT_THAT(Refused({"alibi:8"}, {.trained_length = 0}), HasSubstr("trained_length: expected 1 to 1048576, got 0"));
  EXPECT_THAT(Refused({"alibi:64"}, {.max_offset = 1 << 20}),
              HasSubstr("max_offset: expected at most 16777216 values, of all sources and heads, got 67108928"));
}

TEST(ComparisonText, SaysWhatBucketsDo) {
  EXPECT_EQ(ComparisonText(Compared({"t5:4,5@1,2,3,4", "alibi:1"}, {.trained_length = 4, .heads = {0}})),
            "bias by offset, query position - key position, from 0 to 20; trained on 4 tokens, so on offsets up to 3\n"
            "\n"
            "A  t5:4,5@1,2,3,4\n"
            "   T5, 4 buckets, max distance 5; causal; 1 head\n"
            "   a head has 4 parameters and 4 different values at 21 offsets\n"
            "   saturates at offset 4: one value from there on\n"
            "B  alibi:1\n"
            "   ALiBi, slope 0.003906; causal; 1 head\n"
            "   a head has 1 parameter and 21 different values at 21 offsets\n"
            "   never saturates: it falls by its slope with each token\n"
            "\n"
            "weight against offset 0: e^(bias - bias at offset 0), what a key weighs against one at the query's own\n"
            "position that has the same q.k\n"
            "\n"
            "head 0\n"
            "    offset       A                      B\n"
            "         0       1                      0\n"
            "         1       2              -0.003906\n"
            "    2 .. 3       3  -0.01172 .. -0.007812\n"
            "  ---- trained length 4 ----\n"
            "    4 .. 7       4   -0.02734 .. -0.01562\n"
            "   8 .. 15       4   -0.05859 .. -0.03125\n"
            "  16 .. 20       4    -0.07812 .. -0.0625\n"
            "  weight against offset 0\n"
            "         1   x2.72                 x0.996\n"
            "         3   x7.39                 x0.988\n"
            "         4   x20.1                 x0.984\n"
            "         8   x20.1                 x0.969\n"
            "        16   x20.1                 x0.939\n"
            "        20   x20.1                 x0.925\n"
            "  lowest and highest\n"
            "    within  1 .. 3          -0.01172 .. 0\n"
            "    beyond       4   -0.07812 .. -0.01562\n");
}

TEST(ComparisonText, MasksWhatACausalTableDoesNotShow) {
  const std::string text = ComparisonText(Compared({"t5:4,5@1,2,3,4", "alibi:2,bidirectional"}, {.trained_length = 8}));
  EXPECT_THAT(text, HasSubstr("-1  masked"));
  EXPECT_THAT(text, HasSubstr("beyond, keys after  masked"));
  EXPECT_THAT(ComparisonText(Compared({"alibi:2", "alibi:3"})), HasSubstr("no such head"));
}

int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(ComparisonSvg, HasAPanelAHeadAndACurveASource) {
  const std::string svg =
      ComparisonSvg(Compared({"alibi:12", "t5:32,128,heads=12", "alibi:4"}, {.trained_length = 128}));
  EXPECT_EQ(Count(svg, "<svg"), 1 + 12);
  EXPECT_EQ(Count(svg, "stroke-linejoin"), 3 + 12 + 12 + 4);
  EXPECT_EQ(Count(svg, "(2 of 3 sources)"), 8);
  for (const char* words :
       {"log scale", "beyond the trained length of 128", ">head 11", "T5, 32 buckets", "#ffffff", ">bias<"}) {
    EXPECT_THAT(svg, HasSubstr(words));
  }
  EXPECT_THAT(ComparisonSvg(Compared({"alibi:1"}, {.axis = Axis::kLinear})), Not(HasSubstr("log scale")));
}

// A step of many offsets is one line, and values beyond what pixels show are left out: a picture stays small.
TEST(ComparisonSvg, StaysSmall) {
  EXPECT_LT(ComparisonSvg(Compared({"t5:32,128", "alibi:1"}, {.max_offset = 1 << 20, .axis = Axis::kLinear})).size(),
            30'000U);
  EXPECT_LT(ComparisonSvg(Compared({"t5:32,128"}, {.max_offset = 1 << 20})).size(), 10'000U);
}

TEST(ComparisonSvg, EscapesAndStaysFinite) {
  std::vector<ComparedSource> sources = Sources({"offsets:0@1e38,-1e38,1e38", "offsets:0@5"});
  sources[0].label = "a<b>&\"c\"";
  const std::string svg = ComparisonSvg(*Comparison::Create(std::move(sources), {}));
  EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_THAT(ComparisonSvg(Compared({"offsets:0@1e38"})), Not(HasSubstr("nan")));
}

// WCAG 2.2: relative luminance of "#rrggbb", and the contrast of two.
double Luminance(const std::string& hex) {
  unsigned rgb[3] = {};
  EXPECT_EQ(std::sscanf(hex.c_str(), "#%2x%2x%2x", &rgb[0], &rgb[1], &rgb[2]), 3) << hex;
  double luminance = 0;
  const double weights[] = {0.2126, 0.7152, 0.0722};
  for (int i = 0; i < 3; ++i) {
    const double c = rgb[i] / 255.0;
    luminance += weights[i] * (c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4));
  }
  return luminance;
}
double Contrast(const std::string& a, const std::string& b) {
  const double one = Luminance(a), other = Luminance(b);
  return (std::max(one, other) + 0.05) / (std::min(one, other) + 0.05);
}

// Text and curves have 4.5:1 on white and on the grey of the untrained; frames 3:1. The grid is no information.
TEST(ComparisonSvg, HasContrast) {
  const std::string svg = ComparisonSvg(Compared(std::vector<std::string>(8, "alibi:1"), {.trained_length = 9}));
  int judged = 0;
  for (const std::string& before : {std::string("fill=\""), std::string("stroke=\"")}) {
    for (std::size_t at = svg.find(before); at != std::string::npos; at = svg.find(before, at + 1)) {
      const std::string colour = svg.substr(at + before.size(), 7);
      if (colour[0] != '#' || colour == "#ffffff" || colour == "#eef0f4" || colour == "#d5d9e0") continue;
      const double least = colour == "#7a8290" ? 3 : 4.5;
      EXPECT_GE(Contrast(colour, "#ffffff"), least) << colour;
      EXPECT_GE(Contrast(colour, "#eef0f4"), least) << colour;
      ++judged;
    }
  }
  EXPECT_GT(judged, 30);
}

}  // namespace
}  // namespace attnd::bias
