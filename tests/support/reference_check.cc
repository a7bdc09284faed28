#include "reference_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "kernel/reference.h"

namespace attnd::test {
namespace {

float LargestOf(std::string_view bytes) {
  float largest = 0;
  for (const float value : FloatsOf(bytes)) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace

std::string RandomFloats(std::int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::string bytes(static_cast<std::size_t>(count) * sizeof(float), '\0');
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(float)) {
    const float value = normal(random);
    std::memcpy(&bytes[i], &value, sizeof(float));
  }
  return bytes;
}

std::vector<float> FloatsOf(std::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

void ExpectIsReference(const kernel::Attention& attention, std::string_view q, std::string_view k, std::string_view v,
                       std::string_view output, std::string_view log_sum_exp) {
  const std::vector<float> got = FloatsOf(output);
  const std::vector<float> got_log_sum_exp = FloatsOf(log_sum_exp);
  const std::int64_t rows = attention.batch * attention.heads * attention.query_length;
  std::vector<double> expected(static_cast<std::size_t>(rows * attention.value_head_dim));
  std::vector<double> expected_log_sum_exp(got_log_sum_exp.size());
  ASSERT_EQ(output.size(), expected.size() * sizeof(float));
  kernel::Reference(attention, expected.data(), expected_log_sum_exp.empty() ? nullptr : expected_log_sum_exp.data());

  // A logit is a sum of head_dim products, wrong by at most (head_dim + 2) epsilon times their sizes, and the bias; its
  // error is a relative error of the weight. The sum over the keys adds one epsilon a key, and all is scaled by v.
  const double epsilon = std::numeric_limits<float>::epsilon();
  const double dim = static_cast<double>(attention.head_dim);
  const double logit = std::abs(attention.scale) * dim * LargestOf(q) * LargestOf(k) + 2;
  const double logit_error = (dim + 4) * epsilon * logit;
  const double weight_error = 2 * logit_error + (static_cast<double>(attention.key_length) + 4) * epsilon;
  const double output_error = weight_error * LargestOf(v);
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], output_error) << "output element " << i;
  for (std::size_t i = 0; i < got_log_sum_exp.size(); ++i) {
    if (std::isinf(expected_log_sum_exp[i])) {
      ASSERT_EQ(got_log_sum_exp[i], expected_log_sum_exp[i]) << "row " << i;
    } else {
      ASSERT_NEAR(got_log_sum_exp[i], expected_log_sum_exp[i], weight_error + logit_error) << "row " << i;
    }
  }
}

}  // namespace attnd::test
