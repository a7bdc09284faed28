// That a call without bias names nothing of a model. What a call with one may name: validation_test.cc and
// tests/e2e/bad_input_test.cc.

#include "server/attention/bias.h"

#include <functional>
#include <string>

#include "errors/field_error.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

TEST(BiasTest, OfAModelOrNone) {
  Request request;
  EXPECT_TRUE(CheckBias(request).ok());  // the lookup says what is wrong with the empty name
  request.set_model("m");
  request.set_table("encoder");
  request.set_version(3);
  request.set_first_head(0);
  request.set_table_heads(4);
  EXPECT_TRUE(CheckBias(request).ok());
  Request none;
  none.set_bias(v1::BIAS_NONE);
  EXPECT_TRUE(CheckBias(none).ok());
}

TEST(BiasTest, RefusalsNameFieldExpectedAndGot) {
  const struct {
    std::function<void(Request&)> change;
    std::string field, got;
  } kBad[] = {
      {[](Request& r) { r.set_model("m"); }, "model", "\"m\""},
      {[](Request& r) { r.set_version(7); }, "version", "7"},
      {[](Request& r) { r.set_table("encoder"); }, "table", "\"encoder\""},
      {[](Request& r) { r.set_first_head(0); }, "first_head", "0"},
      {[](Request& r) { r.set_table_heads(-2); }, "table_heads", "-2"},
  };
  for (const auto& bad : kBad) {
    Request request;
    request.set_bias(v1::BIAS_NONE);
    bad.change(request);
    const absl::Status status = CheckBias(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    const auto fault = errors::FaultOf(status);
    ASSERT_TRUE(fault.has_value()) << status;
    EXPECT_EQ(fault->field, bad.field);
    EXPECT_EQ(fault->expected, "none with BIAS_NONE");
    EXPECT_EQ(fault->got, bad.got);
  }
}

TEST(BiasTest, UnknownOnesAreRefused) {
  for (const int number : {2, -1, 1000}) {
    Request request;
    request.set_bias(static_cast<v1::Bias>(number));
    const auto fault = errors::FaultOf(CheckBias(request));
    ASSERT_TRUE(fault.has_value()) << number;
    EXPECT_EQ(fault->field, "bias");
    EXPECT_EQ(fault->expected, "BIAS_NONE or unset");
    EXPECT_EQ(fault->got, std::to_string(number));
  }
}

}  // namespace
}  // namespace attnd::server
