// The per-offset form says what the table says, by the formula of kernel/attention.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "bias/bias_table.h"

namespace attnd::bias {
namespace {

using ::testing::ElementsAre;

double BiasByForm(const OffsetForm& form, std::int64_t head, std::int64_t offset) {
  const auto h = static_cast<std::size_t>(head);
  const double constant = form.constant[h];
  if (offset > form.max_offset) return constant - form.high_slope[h] * static_cast<double>(offset - form.max_offset);
  if (offset < form.min_offset) {
    return constant + form.low_value[h] - form.low_slope[h] * static_cast<double>(form.min_offset - offset);
  }
  const std::int64_t stride = form.max_offset - form.min_offset + 1;
  return constant + form.values[static_cast<std::size_t>(head * stride + form.max_offset - offset)];
}

std::vector<float> Random(std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::uniform_real_distribution<float> uniform(-50, 50);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

TEST(OffsetFormTest, AgreesWithTheTableAtEveryOffset) {
  const Rule rules[] = {
      T5Rule{32, 128, false, Random(96)}, T5Rule{32, 128, true, Random(96)}, T5Rule{33, 100, true, Random(99)},
      T5Rule{2, 8, false, Random(6)},     T5Rule{4, 2, true, Random(12)},    T5Rule{17, 27, false, Random(51)},
      AlibiRule{false, Random(3)},        AlibiRule{true, Random(3)},        PerOffsetRule{0, Random(3)},
      PerOffsetRule{-20, Random(3 * 41)}, PerOffsetRule{5, Random(3 * 4)},   PerOffsetRule{-9, Random(3 * 4)},
  };
  for (const Rule& rule : rules) {
    const auto table = BiasTable::Create(3, rule);
    ASSERT_TRUE(table.ok()) << table.status();
    const OffsetForm& form = table->offset_form();
    for (std::int64_t head = 0; head < 3; ++head) {
      for (std::int64_t offset = -300; offset <= 300; ++offset) {
        const double expected = table->Value(head, offset);
        // One rounding of the value minus the constant, whose magnitudes are at most 50 each; ALiBi's is in double
        // here.
        const double tolerance = (std::abs(expected) + 100) * 0x1p-24;
        ASSERT_NEAR(BiasByForm(form, head, offset), expected, tolerance)
            << "rule " << rule.index() << " head " << head << " offset " << offset;
      }
    }
  }
}

TEST(OffsetFormTest, ACausalT5TableIsZeroFromItsLastBucketOn) {
  const auto table = BiasTable::Create(1, T5Rule{4, 5, false, {10, 11, 12, 13.5F}});
  ASSERT_TRUE(table.ok()) << table.status();
  const OffsetForm& form = table->offset_form();
  EXPECT_EQ(form.min_offset, 0);
  EXPECT_EQ(form.max_offset, 4);
  EXPECT_THAT(form.constant, ElementsAre(13.5F));
  EXPECT_THAT(form.values, ElementsAre(0, -1.5F, -1.5F, -2.5F, -3.5F));  // by descending offset
  EXPECT_THAT(form.low_value, ElementsAre(-3.5F));
}

TEST(OffsetFormTest, ABidirectionalOneEndsInItsOwnConstantEachWay) {
  const auto table = BiasTable::Create(1, T5Rule{8, 5, true, {0, 1, 2, 3, 4, 5, 6, 7}});
  ASSERT_TRUE(table.ok()) << table.status();
  const OffsetForm& form = table->offset_form();
  EXPECT_EQ(form.min_offset, -4);
  EXPECT_EQ(form.max_offset, 4);
  EXPECT_THAT(form.values, ElementsAre(0, -1, -1, -2, -3, 2, 3, 3, 4));
  EXPECT_THAT(form.low_value, ElementsAre(4));
}

}  // namespace
}  // namespace attnd::bias
