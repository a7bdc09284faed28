// Every kind of bad input gets its status and names its field, and the server answers the next good call as before.

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using Request = v1::ComputeAttentionRequest;

struct Case {
  const char* name;
  std::function<void(Request&)> spoil;
  const char* field;  // of the ErrorDetail; null: the error has none
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
};

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

std::vector<Case> Sizes() {
  return {
      {"batch_zero", [](Request& r) { r.set_batch(0); }, "batch"},
      {"batch_negative", [](Request& r) { r.set_batch(-1); }, "batch"},
      {"batch_absurd", [](Request& r) { r.set_batch(kHuge); }, "batch"},
      {"heads_zero", [](Request& r) { r.set_heads(0); }, "heads"},
      {"heads_negative", [](Request& r) { r.set_heads(-2); }, "heads"},
      {"heads_absurd", [](Request& r) { r.set_heads(kHuge); }, "heads"},
      {"heads_the_table_lacks", [](Request& r) { r.set_heads(3); }, "heads"},
      {"heads_fewer_than_the_table_has", [](Request& r) { r.set_heads(1); }, "heads"},
      {"first_head_negative", [](Request& r) { r.set_first_head(-1); }, "first_head"},
      {"first_head_beyond", [](Request& r) { r.set_first_head(1); }, "first_head"},
      {"first_head_absurd", [](Request& r) { r.set_first_head(kHuge); }, "first_head"},
      {"first_head_and_too_many_heads",
       [](Request& r) {
         r.set_first_head(0);
         r.set_heads(3);
       },
       "heads"},
      {"kv_heads_no_divisor",
       [](Request& r) {
         r.set_heads(2);
         r.set_kv_heads(3);
       },
       "kv_heads"},
      {"kv_heads_negative", [](Request& r) { r.set_kv_heads(-1); }, "kv_heads"},
      {"kv_heads_absurd", [](Request& r) { r.set_kv_heads(kHuge); }, "kv_heads"},
      {"kv_heads_other_than_sent", [](Request& r) { r.set_kv_heads(1); }, "k"},
      {"query_length_zero", [](Request& r) { r.set_query_length(0); }, "query_length"},
      {"query_length_negative", [](Request& r) { r.set_query_length(-5); }, "query_length"},
      {"query_length_absurd", [](Request& r) { r.set_query_length(kHuge); }, "query_length"},
      {"query_length_other_than_sent", [](Request& r) { r.set_query_length(6); }, "q"},
      {"key_length_zero", [](Request& r) { r.set_key_length(0); }, "key_length"},
      {"key_length_absurd", [](Request& r) { r.set_key_length(kHuge); }, "key_length"},
      {"key_length_other_than_sent", [](Request& r) { r.set_key_length(8); }, "k"},
      {"head_dim_zero", [](Request& r) { r.set_head_dim(0); }, "head_dim"},
      {"head_dim_absurd", [](Request& r) { r.set_head_dim(1 << 30); }, "head_dim"},
      {"head_dim_other_than_sent", [](Request& r) { r.set_head_dim(5); }, "q"},
      {"value_head_dim_negative", [](Request& r) { r.set_value_head_dim(-1); }, "value_head_dim"},
      {"value_head_dim_absurd", [](Request& r) { r.set_value_head_dim(kHuge); }, "value_head_dim"},
      {"value_head_dim_other_than_sent", [](Request& r) { r.set_value_head_dim(3); }, "v"},
      {"product_overflows_64_bits",
       [](Request& r) {
         r.set_batch(std::numeric_limits<std::int32_t>::max());
         r.set_query_length(std::numeric_limits<std::int32_t>::max());
       },
       "q"},
      // 2^30 * 2 * 2^30 * 4 elements of 4 bytes are 2^65 bytes: 0 modulo 2^64.
      {"product_wraps_to_a_plausible_size",
       [](Request& r) {
         r.set_batch(std::int64_t{1} << 30);
         r.set_query_length(std::int64_t{1} << 30);
         r.clear_q();
       },
       "q"},
  };
}

std::vector<Case> Tensors() {
  return {
      {"q_missing", [](Request& r) { r.clear_q(); }, "q"},
      {"k_missing", [](Request& r) { r.clear_k(); }, "k"},
      {"v_missing", [](Request& r) { r.clear_v(); }, "v"},
      {"q_short_by_one_byte", [](Request& r) { r.mutable_q()->pop_back(); }, "q"},
      {"k_long_by_one_byte", [](Request& r) { r.mutable_k()->push_back('\0'); }, "k"},
      {"v_of_another_length", [](Request& r) { r.mutable_v()->resize(r.v().size() / 2); }, "v"},
      {"q_and_k_swapped", [](Request& r) { r.mutable_q()->swap(*r.mutable_k()); }, "q"},
      {"dtype_unset", [](Request& r) { r.clear_dtype(); }, "dtype"},
      {"dtype_unknown", [](Request& r) { r.set_dtype(static_cast<v1::Dtype>(77)); }, "dtype"},
      {"dtype_negative", [](Request& r) { r.set_dtype(static_cast<v1::Dtype>(-1)); }, "dtype"},
      {"dtype_of_another_size", [](Request& r) { r.set_dtype(v1::DTYPE_BF16); }, "q"},
      {"output_dtype_unknown", [](Request& r) { r.set_output_dtype(static_cast<v1::Dtype>(99)); }, "output_dtype"},
      {"layout_unknown", [](Request& r) { r.set_layout(static_cast<v1::Layout>(99)); }, "layout"},
      {"mask_unknown", [](Request& r) { r.set_mask(static_cast<v1::Mask>(9)); }, "mask"},
      {"product_precision_unknown", [](Request& r) { r.set_product_precision(static_cast<v1::ProductPrecision>(5)); },
       "product_precision"},
      {"q_shared", [](Request& r) { r.mutable_q_shared()->set_offset(1); }, "q_shared",
       grpc::StatusCode::FAILED_PRECONDITION},
      {"output_shared", [](Request& r) { r.mutable_output_shared(); }, "output_shared",
       grpc::StatusCode::FAILED_PRECONDITION},
  };
}

std::vector<Case> Positions() {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  return {
      {"scale_nan", [](Request& r) { r.set_scale(std::nanf("")); }, "scale"},
      {"scale_infinite", [](Request& r) { r.set_scale(-std::numeric_limits<float>::infinity()); }, "scale"},
      {"query_offset_too_low", [](Request& r) { r.set_query_offset(-6); }, "query_offset"},
      {"query_offset_too_high", [](Request& r) { r.set_query_offset(kMax - 4); }, "query_offset"},
      {"query_offset_lowest", [](Request& r) { r.set_query_offset(std::numeric_limits<std::int64_t>::min()); },
       "query_offset"},
      {"query_offset_highest", [](Request& r) { r.set_query_offset(kHuge); }, "query_offset"},
      {"query_lengths_too_few", [](Request& r) { r.add_query_lengths(5); }, "query_lengths"},
      {"query_lengths_negative",
       [](Request& r) {
         r.add_query_lengths(5);
         r.add_query_lengths(-1);
       },
       "query_lengths[1]"},
      {"query_lengths_too_long",
       [](Request& r) {
         r.add_query_lengths(6);
         r.add_query_lengths(0);
       },
       "query_lengths[0]"},
      {"key_lengths_too_many",
       [](Request& r) {
         for (int i = 0; i < 3; ++i) r.add_key_lengths(7);
       },
       "key_lengths"},
      {"key_lengths_too_long",
       [](Request& r) {
         r.add_key_lengths(7);
         r.add_key_lengths(kHuge);
       },
       "key_lengths[1]"},
  };
}

std::vector<Case> Names() {
  using grpc::StatusCode;
  return {
      {"model_unknown", [](Request& r) { r.set_model("nobody"); }, nullptr, StatusCode::NOT_FOUND},
      {"model_empty", [](Request& r) { r.clear_model(); }, nullptr},
      {"model_with_slash", [](Request& r) { r.set_model("a/b"); }, nullptr},
      {"model_dotdot", [](Request& r) { r.set_model(".."); }, nullptr},
      {"model_hidden", [](Request& r) { r.set_model(".test"); }, nullptr},
      {"model_with_nul", [](Request& r) { r.set_model(std::string("test\0", 5)); }, nullptr},
      {"model_too_long", [](Request& r) { r.set_model(std::string(129, 'a')); }, nullptr},
      {"model_of_a_megabyte", [](Request& r) { r.set_model(std::string(1000000, 'a')); }, nullptr},
      {"version_unknown", [](Request& r) { r.set_version(99); }, nullptr, StatusCode::NOT_FOUND},
      {"table_unknown", [](Request& r) { r.set_table("middle"); }, nullptr, StatusCode::NOT_FOUND},
      {"table_with_nul", [](Request& r) { r.set_table(std::string("decoder\0", 8)); }, nullptr, StatusCode::NOT_FOUND},
  };
}

class BadInputTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new TestServer; }
  static void TearDownTestSuite() { delete server_; }

  void Run(const std::vector<Case>& cases) {
    const Request good = ValidRequest();
    v1::ComputeAttentionResponse first;
    ASSERT_TRUE(server_->Compute(good, &first).ok());
    for (const Case& c : cases) {
      SCOPED_TRACE(c.name);
      Request bad = good;
      c.spoil(bad);
      v1::ComputeAttentionResponse response;
      const grpc::Status status = server_->Compute(bad, &response);
      EXPECT_EQ(status.error_code(), c.code) << status.error_message();
      if (c.field != nullptr) {
        const v1::ErrorDetail detail = DetailOf(status);
        EXPECT_EQ(detail.field(), c.field);
        EXPECT_NE(detail.expected(), "");
        EXPECT_EQ(status.error_message(), detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
      }
      EXPECT_LT(status.error_message().size(), 600u);
      v1::ComputeAttentionResponse again;
      ASSERT_TRUE(server_->Compute(good, &again).ok());
      EXPECT_EQ(again.output(), first.output());
    }
  }

  static TestServer* server_;
};

TestServer* BadInputTest::server_ = nullptr;

TEST_F(BadInputTest, Sizes) { Run(Sizes()); }
TEST_F(BadInputTest, Tensors) { Run(Tensors()); }
TEST_F(BadInputTest, Positions) { Run(Positions()); }
TEST_F(BadInputTest, Names) { Run(Names()); }

TEST_F(BadInputTest, MessageSaysFieldExpectedAndGot) {
  Request request = ValidRequest();
  request.mutable_q()->pop_back();
  v1::ComputeAttentionResponse response;
  EXPECT_EQ(server_->Compute(request, &response).error_message(),
            "q: expected 320 bytes (batch 2 x heads 2 x rows 5 x dim 4 of F32), got 319 bytes");
}

}  // namespace
}  // namespace attnd::e2e
