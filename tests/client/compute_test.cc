// Calls over a real socket: what arrives is what protobuf understands, and what comes back lands where it should.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "attnd/client.h"
#include "bounded.h"
#include "fake_server.h"
#include "test_request.h"

namespace attnd::client {
namespace {

std::string BytesOf(const void* data, std::size_t size) { return std::string(static_cast<const char*>(data), size); }

std::string BytesOf(const Tensor& tensor) {
  std::string bytes(tensor.size_bytes(), '\0');
  tensor.CopyTo(bytes.data());
  return bytes;
}

class ComputeTest : public testing::TestWithParam<bool> {
 protected:
  ComputeTest() : server_({&service_}), client_(*Client::Create(server_.target())) {
    service_.handler = [this](grpc::ServerContext* context, const v1::ComputeAttentionRequest& request,
                              v1::ComputeAttentionResponse& response) {
      {
        absl::MutexLock lock(&mutex_);
        seen_ = request;
      }
      FakeAttention plain;
      return plain.ComputeAttention(context, &request, &response);
    };
  }

  // What the formula gives for the request that was seen.
  std::string Expected() {
    std::string output, log_sum_exp;
    absl::MutexLock lock(&mutex_);
    PlainAttention(seen_, output, log_sum_exp);
    return output;
  }

  FakeAttention service_;
  FakeServer server_;
  Client client_;
  absl::Mutex mutex_;  // calls may run at once
  v1::ComputeAttentionRequest seen_;
};

TEST_P(ComputeTest, EveryFieldArrives) {
  TestRequest t(GetParam() ? Sizes{1, 4, 2, 100, 200, 64, 32} : Sizes{1, 4, 2, 3, 5, 8, 6});
  ComputeRequest& r = t.request;
  r.version = 3;
  r.table = "decoder.1";
  r.mask = Mask::kCausal;
  r.scale = 0.125F;
  r.query_offset = -2;
  r.first_head = 1;
  r.query_lengths = {2};
  r.key_lengths = {0};
  r.key_starts = {1};
  r.window_left = 8;
  r.window_right = 9;
  r.prefix_lengths = {1};
  r.key_bias.assign(static_cast<std::size_t>(r.q.sizes[1] * r.k.sizes[2]), 0.5F);
  r.key_bits.resize(static_cast<std::size_t>(r.k.sizes[2] + 7) / 8, 0x5a);
  r.output_dtype = DType::kFp32;
  r.return_log_sum_exp = true;
  r.product_precision = ProductPrecision::kFp32;
  const absl::StatusOr<ComputeReply> reply = client_.Compute(r);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(seen_.model(), "book");
  EXPECT_EQ(seen_.version(), 3U);
  EXPECT_EQ(seen_.table(), "decoder.1");
  EXPECT_EQ(seen_.batch(), 1);
  EXPECT_EQ(seen_.heads(), 4);
  EXPECT_EQ(seen_.kv_heads(), 2);
  EXPECT_EQ(seen_.query_length(), r.q.sizes[2]);
  EXPECT_EQ(seen_.key_length(), r.k.sizes[2]);
  EXPECT_EQ(seen_.head_dim(), r.q.sizes[3]);
  EXPECT_EQ(seen_.value_head_dim(), r.v.sizes[3]);
  EXPECT_EQ(seen_.dtype(), v1::DTYPE_FP32);
  EXPECT_EQ(seen_.layout(), v1::LAYOUT_BATCH_HEAD_SEQUENCE_DIM);
  EXPECT_EQ(seen_.mask(), v1::MASK_CAUSAL);
  EXPECT_EQ(seen_.scale(), 0.125F);
  EXPECT_EQ(seen_.query_offset(), -2);
  EXPECT_EQ(seen_.first_head(), 1);
  EXPECT_THAT(seen_.query_lengths(), testing::ElementsAre(2));
  EXPECT_THAT(seen_.key_lengths(), testing::ElementsAre(0));
  EXPECT_THAT(seen_.key_starts(), testing::ElementsAre(1));
  EXPECT_EQ(seen_.key_bits(), BytesOf(r.key_bits.data(), r.key_bits.size()));
  EXPECT_EQ(seen_.window_left(), 8);
  EXPECT_EQ(seen_.window_right(), 9);
  EXPECT_THAT(seen_.prefix_lengths(), testing::ElementsAre(1));
  EXPECT_THAT(seen_.key_bias(), testing::ElementsAreArray(r.key_bias));
  EXPECT_EQ(seen_.product_precision(), v1::PRODUCT_PRECISION_FP32);
  EXPECT_EQ(seen_.q(), BytesOf(t.q.data(), t.q.size() * sizeof(float)));
  EXPECT_EQ(seen_.k(), BytesOf(t.k.data(), t.k.size() * sizeof(float)));
  EXPECT_EQ(seen_.v(), BytesOf(t.v.data(), t.v.size() * sizeof(float)));
  EXPECT_EQ(seen_.GetReflection()->GetUnknownFields(seen_).field_count(), 0);

  EXPECT_EQ(BytesOf(reply->output), Expected());
  EXPECT_THAT(reply->output.sizes(), testing::ElementsAre(1, 4, r.q.sizes[2], r.v.sizes[3]));
  EXPECT_EQ(reply->log_sum_exp.size(), 4 * static_cast<std::size_t>(r.q.sizes[2]));
  EXPECT_EQ(reply->version, 7U);
  EXPECT_EQ(reply->content_hash, "abc");
  EXPECT_EQ(reply->queue_time, absl::Microseconds(2));
  EXPECT_EQ(reply->compute_time, absl::Seconds(1.5));
}

INSTANTIATE_TEST_SUITE_P(SmallAndLarge, ComputeTest, testing::Bool(),
                         [](const auto& run) { return run.param ? "Large" : "Small"; });

TEST_F(ComputeTest, ACallWithoutBiasNamesNoModel) {
  TestRequest t;
  t.request.model = "";
  t.request.bias = Bias::kNone;
  t.request.query_offsets = {-1, 4};
  ASSERT_TRUE(client_.Compute(t.request).ok());
  EXPECT_EQ(seen_.bias(), v1::BIAS_NONE);
  EXPECT_EQ(seen_.model(), "");
  EXPECT_THAT(seen_.query_offsets(), testing::ElementsAre(-1, 4));
  EXPECT_FALSE(seen_.has_query_offset());
}

TEST_F(ComputeTest, PlacesOfSequencesArrive) {
  TestRequest packed;
  packed.request.query_segments = {0, 2, 3};
  packed.request.key_segments = {0, 1, 5};
  ASSERT_TRUE(client_.Compute(packed.request).ok());
  EXPECT_THAT(seen_.query_segments(), testing::ElementsAre(0, 2, 3));
  EXPECT_THAT(seen_.key_segments(), testing::ElementsAre(0, 1, 5));
  EXPECT_EQ(seen_.kv_batch(), 0);
  TestRequest beams;
  beams.request.k.sizes[0] = beams.request.v.sizes[0] = 1;
  beams.request.kv_rows = {0, 0};
  // The plain formula of the server here knows no shared keys: what matters is what arrives.
  service_.handler = [this](grpc::ServerContext*, const v1::ComputeAttentionRequest& request,
                            v1::ComputeAttentionResponse&) {
    absl::MutexLock lock(&mutex_);
    seen_ = request;
    return grpc::Status(grpc::StatusCode::ABORTED, "seen");
  };
  EXPECT_FALSE(client_.Compute(beams.request).ok());
  EXPECT_THAT(seen_.kv_rows(), testing::ElementsAre(0, 0));
  EXPECT_EQ(seen_.kv_batch(), 1);
  EXPECT_EQ(seen_.k(), BytesOf(beams.k.data(), beams.k.size() / 2 * sizeof(float)));
}

TEST_F(ComputeTest, AbsentFieldsStayAbsent) {
  TestRequest t;
  ASSERT_TRUE(client_.Compute(t.request).ok());
  EXPECT_FALSE(seen_.has_scale());
  EXPECT_FALSE(seen_.has_query_offset());
  EXPECT_FALSE(seen_.has_first_head());
  EXPECT_EQ(seen_.mask(), v1::MASK_UNSPECIFIED);
  EXPECT_EQ(seen_.bias(), v1::BIAS_UNSPECIFIED);
  EXPECT_EQ(seen_.query_offsets_size() + seen_.query_lengths_size() + seen_.key_lengths_size(), 0);
  EXPECT_EQ(seen_.key_starts_size(), 0);
  EXPECT_EQ(seen_.key_bits(), "");
  EXPECT_FALSE(seen_.has_window_left());
  EXPECT_FALSE(seen_.has_window_right());
  EXPECT_EQ(seen_.prefix_lengths_size(), 0);
  EXPECT_EQ(seen_.key_bias_size(), 0);
  EXPECT_EQ(seen_.query_segments_size() + seen_.key_segments_size() + seen_.kv_rows_size(), 0);
  EXPECT_EQ(seen_.kv_batch(), 0);
}

TEST_F(ComputeTest, AxesFollowTheLayout) {
  TestRequest t;
  t.request.layout = Layout::kBatchSequenceHeadDim;
  t.request.q.sizes = {2, 3, 4, 8};
  t.request.k.sizes = {2, 5, 2, 8};
  t.request.v.sizes = {2, 5, 2, 6};
  const auto reply = client_.Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(seen_.layout(), v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM);
  EXPECT_EQ(seen_.heads(), 4);
  EXPECT_EQ(seen_.kv_heads(), 2);
  EXPECT_EQ(seen_.query_length(), 3);
  EXPECT_EQ(seen_.key_length(), 5);
  EXPECT_THAT(reply->output.sizes(), testing::ElementsAre(2, 3, 4, 6));
}

TEST_F(ComputeTest, ResultsGoToTheCallersMemory) {
  TestRequest t(Large());
  std::vector<float> output(t.output_values), log_sum_exp(256);
  t.request.return_log_sum_exp = true;
  t.request.output = {output.data(), output.size() * sizeof(float)};
  t.request.log_sum_exp = {log_sum_exp.data(), log_sum_exp.size() * sizeof(float)};
  const auto reply = client_.Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->output.size_bytes(), 0U);
  EXPECT_TRUE(reply->log_sum_exp.empty());
  std::string expected_output, expected_log_sum_exp;
  PlainAttention(seen_, expected_output, expected_log_sum_exp);
  EXPECT_EQ(BytesOf(output.data(), output.size() * sizeof(float)), expected_output);
  EXPECT_EQ(BytesOf(log_sum_exp.data(), log_sum_exp.size() * sizeof(float)), expected_log_sum_exp);
}

TEST_F(ComputeTest, SegmentsHoldTheSameBytes) {
  TestRequest t(Large());
  t.request.output_in_segments = true;
  const auto reply = client_.Compute(t.request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_GE(reply->output.segments().size(), 1U);
  EXPECT_EQ(BytesOf(reply->output), Expected());
}

TEST_F(ComputeTest, TensorsMayBeUnaligned) {
  TestRequest t(Large());
  std::string shifted = "x" + BytesOf(t.q.data(), t.q.size() * sizeof(float));
  t.request.q.data = shifted.data() + 1;
  ASSERT_TRUE(client_.Compute(t.request).ok());
  EXPECT_EQ(seen_.q(), shifted.substr(1));
}

TEST_F(ComputeTest, FutureAndCallbackGiveTheSame) {
  TestRequest t(Large());
  const auto now = client_.Compute(t.request);
  auto future = client_.ComputeFuture(t.request);
  std::promise<absl::StatusOr<ComputeReply>> called;
  client_.ComputeAsync(t.request, {}, [&](absl::StatusOr<ComputeReply> reply) { called.set_value(std::move(reply)); });
  const auto later = Get(future);
  const auto by_callback = called.get_future().get();
  ASSERT_TRUE(now.ok() && later.ok() && by_callback.ok());
  EXPECT_EQ(BytesOf(now->output), BytesOf(later->output));
  EXPECT_EQ(BytesOf(now->output), BytesOf(by_callback->output));
}

TEST_F(ComputeTest, OneClientServesManyThreads) {
  service_.handler = nullptr;
  constexpr int kThreads = 4, kCalls = 20;
  TestRequest t(Sizes{1, 2, 2, 64, 64, 16, 16});
  const auto expected = client_.Compute(t.request);
  ASSERT_TRUE(expected.ok());
  std::atomic<int> same = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, client = client_]() mutable {
      for (int call = 0; call < kCalls; ++call) {
        auto future = client.ComputeFuture(t.request);
        const auto reply = client.Compute(t.request);
        const auto later = Get(future);
        if (reply.ok() && BytesOf(reply->output) == BytesOf(expected->output)) ++same;
        if (later.ok() && BytesOf(later->output) == BytesOf(expected->output)) ++same;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 2 * kThreads * kCalls);
}

TEST_F(ComputeTest, MetadataArrivesAndBadMetadataIsRefused) {
  std::string seen;
  service_.handler = [&](grpc::ServerContext* context, const v1::ComputeAttentionRequest&,
                         v1::ComputeAttentionResponse&) {
    const auto found = context->client_metadata().find("tenant");
    if (found != context->client_metadata().end()) seen.assign(found->second.data(), found->second.size());
    return grpc::Status(grpc::StatusCode::ABORTED, "seen");
  };
  TestRequest t;
  CallOptions options;
  options.metadata = {{"tenant", "blue"}};
  EXPECT_EQ(client_.Compute(t.request, options).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(seen, "blue");
  for (const auto& bad :
       {std::pair{"Tenant", "x"}, std::pair{"", "x"}, std::pair{"tenant", "a\nb"}, std::pair{":path", "/"}}) {
    options.metadata = {bad};
    EXPECT_EQ(client_.Compute(t.request, options).status().code(), absl::StatusCode::kInvalidArgument) << bad.first;
    EXPECT_EQ(client_.GetServerInfo(options).status().code(), absl::StatusCode::kInvalidArgument) << bad.first;
  }
}

}  // namespace
}  // namespace attnd::client
