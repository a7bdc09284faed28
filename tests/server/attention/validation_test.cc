// What a valid request becomes. What is refused, and how, is tested through a server in tests/e2e/bad_input_test.cc.

#include "server/attention/validation.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

bias::BiasTable Table(bool bidirectional) {
  std::vector<float> values;
  for (int bucket = 0; bucket < 4; ++bucket) {
    for (int head = 0; head < 6; ++head) values.push_back(static_cast<float>(10 * bucket + head));
  }
  return *bias::BiasTable::Create(
      6, bias::T5Rule{.num_buckets = 4, .max_distance = 6, .bidirectional = bidirectional, .values = values});
}

class ValidateTest : public testing::Test {
 protected:
  ValidateTest()
      : model_("m", 1, "test", absl::UnixEpoch(),
               {.tables = {{"decoder", Table(false)}, {"encoder", Table(true)}}, .format = "", .architecture = ""},
               "hash") {
    request_.set_model("m");
    request_.set_batch(3);
    request_.set_heads(6);
    request_.set_kv_heads(2);
    request_.set_query_length(5);
    request_.set_key_length(7);
    request_.set_head_dim(8);
    request_.set_value_head_dim(4);
    request_.set_dtype(v1::DTYPE_FP16);
    tensors_.q.size = 3 * 6 * 5 * 8 * 2;
    tensors_.k.size = 3 * 2 * 7 * 8 * 2;
    tensors_.v.size = 3 * 2 * 7 * 4 * 2;
  }

  ValidAttention Validate(const std::function<void(Request&)>& change = [](Request&) {}) {
    changed_ = request_;
    change(changed_);
    absl::StatusOr<ValidAttention> valid =
        AttentionValidator(Limits()).Validate(changed_, tensors_, changed_.bias() == v1::BIAS_NONE ? nullptr : &model_);
    EXPECT_TRUE(valid.ok()) << valid.status();
    return valid.ok() ? *std::move(valid) : ValidAttention{};
  }

  model::Model model_;
  Request request_;
  Request changed_;  // outlives the views into its lengths
  RequestTensors tensors_;
};

TEST_F(ValidateTest, SizesAndResults) {
  const ValidAttention valid = Validate();
  const kernel::Attention& a = valid.attention;
  EXPECT_EQ(a.batch, 3);
  EXPECT_EQ(a.heads, 6);
  EXPECT_EQ(a.kv_heads, 2);
  EXPECT_EQ(a.query_length, 5);
  EXPECT_EQ(a.key_length, 7);
  EXPECT_EQ(a.head_dim, 8);
  EXPECT_EQ(a.value_head_dim, 4);
  EXPECT_EQ(a.q.dtype, tensor::DType::kF16);
  EXPECT_EQ(a.v.dtype, tensor::DType::kF16);
  EXPECT_EQ(valid.output_bytes, 3 * 6 * 5 * 4 * 2);
  EXPECT_EQ(valid.log_sum_exp_bytes, 0);
  EXPECT_EQ(a.out.data, nullptr);
  EXPECT_EQ(a.log_sum_exp, nullptr);
  EXPECT_EQ(a.bias, nullptr);
}

TEST_F(ValidateTest, Defaults) {
  const ValidAttention valid = Validate();
  EXPECT_EQ(valid.attention.scale, 1.0F);
  EXPECT_EQ(valid.attention.query_offset, 2);
  EXPECT_EQ(valid.attention.mask, kernel::Mask::kCausal);
  EXPECT_EQ(valid.attention.out.dtype, tensor::DType::kF16);
  EXPECT_EQ(valid.output_dtype, v1::DTYPE_FP16);
  EXPECT_EQ(valid.attention.query_lengths, nullptr);
  EXPECT_EQ(valid.attention.key_lengths, nullptr);
  EXPECT_EQ(valid.attention.product_precision, kernel::ProductPrecision::kF32);
  tensors_.k.size = tensors_.q.size * 7 / 5;
  tensors_.v.size = tensors_.k.size;
  const ValidAttention same_heads = Validate([](Request& r) {
    r.clear_kv_heads();
    r.clear_value_head_dim();
  });
  EXPECT_EQ(same_heads.attention.kv_heads, 6);
  EXPECT_EQ(same_heads.attention.value_head_dim, 8);
}

TEST_F(ValidateTest, StridesOfBothLayouts) {
  const kernel::Attention by_head = Validate().attention;
  EXPECT_EQ(by_head.q.batch_stride, 6 * 5 * 8);
  EXPECT_EQ(by_head.q.head_stride, 5 * 8);
  EXPECT_EQ(by_head.q.row_stride, 8);
  EXPECT_EQ(by_head.k.batch_stride, 2 * 7 * 8);
  EXPECT_EQ(by_head.v.head_stride, 7 * 4);
  EXPECT_EQ(by_head.out.row_stride, 4);
  const kernel::Attention by_row =
      Validate([](Request& r) { r.set_layout(v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM); }).attention;
  EXPECT_EQ(by_row.q.batch_stride, 6 * 5 * 8);
  EXPECT_EQ(by_row.q.head_stride, 8);
  EXPECT_EQ(by_row.q.row_stride, 6 * 8);
  EXPECT_EQ(by_row.k.row_stride, 2 * 8);
  EXPECT_EQ(by_row.v.head_stride, 4);
  EXPECT_EQ(by_row.out.row_stride, 6 * 4);
}

TEST_F(ValidateTest, MaskFollowsTheTableUnlessGiven) {
  const auto mask = [&](const char* table, v1::Mask given) {
    return Validate([&](Request& r) {
             r.set_table(table);
             r.set_mask(given);
           })
        .attention.mask;
  };
  EXPECT_EQ(mask("decoder", v1::MASK_UNSPECIFIED), kernel::Mask::kCausal);
  EXPECT_EQ(mask("encoder", v1::MASK_UNSPECIFIED), kernel::Mask::kNone);
  EXPECT_EQ(mask("decoder", v1::MASK_NONE), kernel::Mask::kNone);
  EXPECT_EQ(mask("encoder", v1::MASK_CAUSAL), kernel::Mask::kCausal);
}

TEST_F(ValidateTest, ProductsAreBf16WhereBothEndsAre) {
  const auto precision = [&](v1::Dtype dtype, v1::Dtype output, v1::ProductPrecision asked) {
    return Validate([&](Request& r) {
             r.set_dtype(dtype);
             r.set_output_dtype(output);
             r.set_product_precision(asked);
           })
        .attention.product_precision;
  };
  using kernel::ProductPrecision;
  EXPECT_EQ(precision(v1::DTYPE_BF16, v1::DTYPE_UNSPECIFIED, v1::PRODUCT_PRECISION_UNSPECIFIED),
            ProductPrecision::kBF16);
  EXPECT_EQ(precision(v1::DTYPE_BF16, v1::DTYPE_FP32, v1::PRODUCT_PRECISION_UNSPECIFIED), ProductPrecision::kF32);
  EXPECT_EQ(precision(v1::DTYPE_BF16, v1::DTYPE_FP32, v1::PRODUCT_PRECISION_BF16), ProductPrecision::kBF16);
  EXPECT_EQ(precision(v1::DTYPE_BF16, v1::DTYPE_BF16, v1::PRODUCT_PRECISION_FP32), ProductPrecision::kF32);
  EXPECT_EQ(precision(v1::DTYPE_FP16, v1::DTYPE_FP16, v1::PRODUCT_PRECISION_BF16), ProductPrecision::kF32);
}

TEST_F(ValidateTest, OutermostOffsetsAreTaken) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(Validate([](Request& r) { r.set_query_offset(-5); }).attention.query_offset, -5);
  EXPECT_EQ(Validate([](Request& r) { r.set_query_offset(kMax - 5); }).attention.query_offset, kMax - 5);
}

TEST_F(ValidateTest, LengthsAreTakenAsTheyAre) {
  const ValidAttention valid = Validate([](Request& r) {
    for (const std::int64_t length : {0, 5, 3}) r.add_query_lengths(length);
    for (const std::int64_t length : {7, 0, 1}) r.add_key_lengths(length);
  });
  EXPECT_EQ(valid.attention.query_lengths[1], 5);
  EXPECT_EQ(valid.attention.key_lengths[2], 1);
}

TEST_F(ValidateTest, FirstHeadMovesTheBias) {
  const kernel::BiasView all = Validate().bias.value();
  tensors_.q.size /= 3;
  const kernel::BiasView some = Validate([](Request& r) {
                                  r.set_heads(2);
                                  r.set_first_head(4);
                                }).bias.value();
  EXPECT_EQ(some.head_stride, all.head_stride);
  EXPECT_EQ(some.values, all.values + 4 * all.head_stride);
  EXPECT_EQ(some.constant[1], all.constant[5]);
  EXPECT_EQ(some.low_value[0], all.low_value[4]);
}

TEST_F(ValidateTest, WithoutBiasThereIsNoMaskUnlessGivenAndAnyNumberOfHeads) {
  tensors_.q.size = tensors_.q.size / 6 * 8;
  const auto without = [&](v1::Mask mask) {
    return Validate([&](Request& r) {
      r.set_bias(v1::BIAS_NONE);
      r.clear_model();
      r.set_heads(8);
      r.set_mask(mask);
    });
  };
  ValidAttention valid = without(v1::MASK_UNSPECIFIED);
  EXPECT_FALSE(valid.bias.has_value());
  EXPECT_EQ(valid.attention.mask, kernel::Mask::kNone);
  valid.PointToBias();
  EXPECT_EQ(valid.attention.bias, nullptr);
  EXPECT_EQ(without(v1::MASK_CAUSAL).attention.mask, kernel::Mask::kCausal);
}

TEST_F(ValidateTest, ABiasIsPointedTo) {
  ValidAttention valid = Validate();
  valid.PointToBias();
  EXPECT_EQ(valid.attention.bias, &valid.bias.value());
}

TEST_F(ValidateTest, MasksAreTakenAsTheyAre) {
  const std::string bits = "\x7f\x01\x80";
  const ValidAttention valid = Validate([&](Request& r) {
    for (const std::int64_t offset : {-5, 0, 9}) r.add_query_offsets(offset);
    for (const std::int64_t start : {0, 7, 2}) r.add_key_starts(start);
    r.set_key_bits(bits);
  });
  EXPECT_EQ(valid.attention.query_offsets, changed_.query_offsets().data());
  EXPECT_EQ(valid.attention.key_starts, changed_.key_starts().data());
  EXPECT_EQ(static_cast<const void*>(valid.attention.key_bits), changed_.key_bits().data());
}

TEST_F(ValidateTest, LogSumExpIsFp32) {
  EXPECT_EQ(Validate([](Request& r) { r.set_return_log_sum_exp(true); }).log_sum_exp_bytes, 3 * 6 * 5 * 4);
}

}  // namespace
}  // namespace attnd::server
