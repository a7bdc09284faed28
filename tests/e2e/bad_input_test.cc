// Every kind of bad input gets its status and names its field, and the server answers the next good call as before.

#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "temp_folder.h"

namespace attnd::e2e {
namespace {

using Request = v1::ComputeAttentionRequest;

struct Case {
  const char* name;
  std::function<void(Request&)> spoil;
  const char* field;  // of the ErrorDetail
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
      {"table_heads_other_than_the_table_has",
       [](Request& r) {
         r.set_first_head(0);
         r.set_table_heads(3);
       },
       "heads"},  // the field that is at fault in the whole call, not in this piece of it
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
      {"k_shared", [](Request& r) { r.mutable_k_shared(); }, "k_shared", grpc::StatusCode::FAILED_PRECONDITION},
      {"v_shared", [](Request& r) { r.mutable_v_shared(); }, "v_shared", grpc::StatusCode::FAILED_PRECONDITION},
      {"q_shared", [](Request& r) { r.mutable_q_shared()->set_offset(1); }, "q_shared",
       grpc::StatusCode::FAILED_PRECONDITION},
      {"output_shared", [](Request& r) { r.mutable_output_shared(); }, "output_shared",
       grpc::StatusCode::FAILED_PRECONDITION},
      {"log_sum_exp_shared", [](Request& r) { r.mutable_log_sum_exp_shared(); }, "log_sum_exp_shared",
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
      {"query_offsets_too_few", [](Request& r) { r.add_query_offsets(0); }, "query_offsets"},
      {"query_offsets_too_low",
       [](Request& r) {
         r.add_query_offsets(-5);
         r.add_query_offsets(-6);
       },
       "query_offsets[1]"},
      {"query_offsets_too_high",
       [](Request& r) {
         r.add_query_offsets(kMax - 4);
         r.add_query_offsets(0);
       },
       "query_offsets[0]"},
      {"query_offsets_beside_query_offset",
       [](Request& r) {
         r.set_query_offset(0);
         r.mutable_query_offsets()->Resize(2, 0);
       },
       "query_offsets"},
      {"key_starts_too_many", [](Request& r) { r.mutable_key_starts()->Resize(3, 0); }, "key_starts"},
      {"key_starts_negative",
       [](Request& r) {
         r.add_key_starts(0);
         r.add_key_starts(-1);
       },
       "key_starts[1]"},
      {"key_starts_too_late",
       [](Request& r) {
         r.add_key_starts(8);
         r.add_key_starts(0);
       },
       "key_starts[0]"},
      {"window_before_the_query", [](Request& r) { r.set_window_left(-1); }, "window_left"},
      {"window_too_wide", [](Request& r) { r.set_window_right(std::int64_t{1} << 31); }, "window_right"},
      {"prefix_without_a_mask",
       [](Request& r) {
         r.set_mask(v1::MASK_NONE);
         r.mutable_prefix_lengths()->Resize(2, 0);
       },
       "prefix_lengths"},
      {"prefixes_too_few", [](Request& r) { r.add_prefix_lengths(0); }, "prefix_lengths"},
      {"key_bias_too_short", [](Request& r) { r.add_key_bias(0); }, "key_bias"},
      {"segments_that_begin_late", [](Request& r) { r.add_query_segments(1); }, "key_segments"},
      {"segments_of_keys_alone", [](Request& r) { r.add_key_segments(0); }, "key_segments"},
      {"segments_of_one_row",
       [](Request& r) {
         r.add_query_segments(0);
         r.add_key_segments(0);
       },
       "query_segments"},
      {"keys_of_another_batch", [](Request& r) { r.set_kv_batch(3); }, "k"},
      {"keys_of_a_negative_batch", [](Request& r) { r.set_kv_batch(-1); }, "kv_batch"},
      {"rows_of_keys_that_are_not_there",
       [](Request& r) {
         r.add_kv_rows(0);
         r.add_kv_rows(2);
       },
       "kv_rows[1]"},
      {"key_bits_too_few", [](Request& r) { r.set_key_bits("\x7f"); }, "key_bits"},
      {"key_bits_too_many", [](Request& r) { r.set_key_bits("\x7f\x7f\x7f"); }, "key_bits"},
      {"key_bits_of_a_byte_each", [](Request& r) { r.set_key_bits(std::string(14, '\1')); }, "key_bits"},
  };
}

std::vector<Case> Names() {
  using grpc::StatusCode;
  return {
      {"model_unknown", [](Request& r) { r.set_model("nobody"); }, "model", StatusCode::NOT_FOUND},
      {"model_empty", [](Request& r) { r.clear_model(); }, "model"},
      {"model_with_slash", [](Request& r) { r.set_model("a/b/c"); }, "model"},
      {"model_dotdot", [](Request& r) { r.set_model(".."); }, "model"},
      {"model_hidden", [](Request& r) { r.set_model(".test"); }, "model"},
      {"model_with_nul", [](Request& r) { r.set_model(std::string("test\0", 5)); }, "model"},
      {"model_too_long", [](Request& r) { r.set_model(std::string(129, 'a')); }, "model"},
      {"model_of_a_megabyte", [](Request& r) { r.set_model(std::string(1000000, 'a')); }, "model"},
      {"version_unknown", [](Request& r) { r.set_version(99); }, "version", StatusCode::NOT_FOUND},
      {"table_unknown", [](Request& r) { r.set_table("middle"); }, "table", StatusCode::NOT_FOUND},
      {"bias_unknown", [](Request& r) { r.set_bias(static_cast<v1::Bias>(2)); }, "bias"},
      {"bias_negative", [](Request& r) { r.set_bias(static_cast<v1::Bias>(-1)); }, "bias"},
      {"model_without_bias", [](Request& r) { r.set_bias(v1::BIAS_NONE); }, "model"},
      {"version_without_bias",
       [](Request& r) {
         r.set_bias(v1::BIAS_NONE);
         r.clear_model();
         r.set_version(1);
       },
       "version"},
      {"table_without_bias",
       [](Request& r) {
         r.set_bias(v1::BIAS_NONE);
         r.clear_model();
         r.set_table("decoder");
       },
       "table"},
      {"first_head_without_bias",
       [](Request& r) {
         r.set_bias(v1::BIAS_NONE);
         r.clear_model();
         r.set_first_head(0);
       },
       "first_head"},
      {"table_heads_without_bias",
       [](Request& r) {
         r.set_bias(v1::BIAS_NONE);
         r.clear_model();
         r.set_table_heads(2);
       },
       "table_heads"},
      {"table_with_nul", [](Request& r) { r.set_table(std::string("decoder\0", 8)); }, "table", StatusCode::NOT_FOUND},
  };
}

class BadInputTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempFolder;
    server::Options options = TestOptions();
    options.listen.push_back("unix:" + folder_->path() + "/s");
    options.shared_memory = false;
    server_ = new TestServer(options);
  }
  static void TearDownTestSuite() {
    delete server_;
    delete folder_;
  }

  void SetUp() override { ASSERT_EQ(local_.Greet().code(), 0); }

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
      const v1::ErrorDetail detail = DetailOf(status);
      EXPECT_EQ(detail.field(), c.field);
      EXPECT_NE(detail.expected(), "");
      EXPECT_EQ(status.error_message(), detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
      EXPECT_LT(status.error_message().size(), 600u);
      const v1::StreamAttentionResponse answer = AsPiece(bad);
      EXPECT_EQ(answer.code(), c.code);
      EXPECT_EQ(answer.message(), status.error_message());
      EXPECT_EQ(answer.detail().SerializeAsString(), detail.SerializeAsString());
      if (bad.ByteSizeLong() < kMostOfADatagram) {
        const v1::LocalAnswer local = local_.Call(bad);
        EXPECT_EQ(local.code(), c.code);
        EXPECT_EQ(local.message(), status.error_message());
        EXPECT_EQ(local.detail().SerializeAsString(), detail.SerializeAsString());
      }
      v1::ComputeAttentionResponse again;
      ASSERT_TRUE(server_->Compute(good, &again).ok());
      EXPECT_EQ(again.output(), first.output());
    }
  }

  // Sends the call as one piece of a stream and returns the answer.
  v1::StreamAttentionResponse AsPiece(const Request& request) {
    grpc::ClientContext context;
    const auto stream = server_->attention().StreamAttention(&context);
    v1::StreamAttentionRequest piece;
    piece.set_q(request.q());
    piece.set_k(request.k());
    piece.set_v(request.v());
    *piece.mutable_call() = request;
    piece.mutable_call()->clear_q();
    piece.mutable_call()->clear_k();
    piece.mutable_call()->clear_v();
    v1::StreamAttentionResponse answer;
    EXPECT_TRUE(stream->Write(piece));
    EXPECT_TRUE(stream->Read(&answer));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return answer;
  }

  // Sends a local call with id 7 and these bytes as its request, and returns the answer.
  v1::LocalAnswer CallLocally(const std::string& request) {
    google::protobuf::UnknownFieldSet call;
    call.AddVarint(v1::LocalCall::kIdFieldNumber, 7);
    call.AddLengthDelimited(v1::LocalCall::kRequestFieldNumber, request);
    std::string bytes;
    call.SerializeToString(&bytes);
    google::protobuf::UnknownFieldSet datagram;
    datagram.AddLengthDelimited(v1::LocalRequest::kCallFieldNumber, bytes);
    datagram.SerializeToString(&bytes);
    EXPECT_TRUE(local_.raw().Send(bytes));
    return local_.Answer();
  }

  static constexpr std::size_t kMostOfADatagram = 60'000;

  static test::TempFolder* folder_;
  static TestServer* server_;
  const test::LocalCaller local_{folder_->path() + "/s.shm"};
};

test::TempFolder* BadInputTest::folder_ = nullptr;
TestServer* BadInputTest::server_ = nullptr;

TEST_F(BadInputTest, Sizes) { Run(Sizes()); }
TEST_F(BadInputTest, Tensors) { Run(Tensors()); }
TEST_F(BadInputTest, Positions) { Run(Positions()); }
TEST_F(BadInputTest, Names) { Run(Names()); }

// A new field needs a case, or an entry in `named` that says why it has none.
TEST_F(BadInputTest, EveryFieldHasACase) {
  std::set<std::string> named = {"return_log_sum_exp"};  // a bool, so every value is valid
  for (const auto& cases : {Sizes(), Tensors(), Positions(), Names()}) {
    for (const Case& c : cases) {
      const std::string field = c.field;
      named.insert(field.substr(0, field.find('[')));
    }
  }
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    EXPECT_TRUE(named.contains(Request::descriptor()->field(i)->name())) << Request::descriptor()->field(i)->name();
  }
}

// Bytes that protobuf's own classes would not send.
TEST_F(BadInputTest, WhatIsNoMessage) {
  const std::string call = ValidRequest().SerializeAsString();
  const struct {
    const char* method;
    std::string bytes;
    const char* field;
    const char* got;
  } kCases[] = {
      {"ComputeAttention", call + "\x0a\x02\xc3(", "model", "a string that is not"},
      {"ComputeAttention", call + "\x1a\x01\xff", "table", "a string that is not"},
      {"ComputeAttention", call + "\x07", "request", "malformed protobuf at byte "},
      {"ComputeAttention", "\x82\x01\x01\xff" + call, "request", "malformed protobuf"},  // a varint, cut
      {"StreamAttention", "\x12\x03\x0a\x01\xff", "call.model", "a string that is not"},
  };
  for (const auto& c : kCases) {
    std::string reply;
    const grpc::Status status = RawCall(server_->channel(), std::string("/attnd.v1.AttentionService/") + c.method,
                                        {grpc::Slice(c.bytes)}, &reply);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_EQ(DetailOf(status).field(), c.field) << status.error_message();
    EXPECT_EQ(DetailOf(status).got().substr(0, std::string(c.got).size()), c.got);
    if (std::string(c.method) != "ComputeAttention") continue;
    const v1::LocalAnswer local = CallLocally(c.bytes);
    EXPECT_EQ(local.id(), 7U);
    EXPECT_EQ(local.code(), status.error_code());
    EXPECT_EQ(local.message(), status.error_message());
    EXPECT_EQ(local.detail().SerializeAsString(), DetailOf(status).SerializeAsString());
  }
}

TEST_F(BadInputTest, MessageSaysFieldExpectedAndGot) {
  Request request = ValidRequest();
  request.mutable_q()->pop_back();
  v1::ComputeAttentionResponse response;
  EXPECT_EQ(server_->Compute(request, &response).error_message(),
            "q: expected 320 bytes (batch 2 x heads 2 x rows 5 x dim 4 of F32), got 319 bytes");
}

}  // namespace
}  // namespace attnd::e2e
