// What the public headers promise and no other test of this folder holds.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "attnd/client.h"
#include "fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_request.h"

namespace attnd::client {
namespace {

constexpr char kNobody[] = "unix:///nonexistent/attnd.sock";

TEST(TensorTest, DataIsAlignedOrNull) {
  const auto memory = std::make_shared<std::vector<double>>(4);
  const auto* const bytes = reinterpret_cast<const unsigned char*>(memory->data());
  for (const DType dtype : {DType::kFp32, DType::kFp16, DType::kBf16}) {
    for (std::size_t shift = 0; shift < 8; ++shift) {
      const Tensor tensor(dtype, {1, 1, 1, 4}, Tensor::Segment(bytes + shift, 4 * SizeOf(dtype)), memory);
      EXPECT_EQ(tensor.data(), shift % SizeOf(dtype) == 0 ? bytes + shift : nullptr) << shift;
      EXPECT_EQ(tensor.segments().size(), 1U);
    }
  }
  EXPECT_EQ(Tensor().data(), nullptr);
  EXPECT_EQ(Tensor().size_bytes(), 0U);
  const Tensor torn(DType::kFp32, {1, 1, 1, 2}, {{bytes, 3}, {bytes + 3, 5}}, memory);
  EXPECT_EQ(torn.data(), nullptr);
  EXPECT_EQ(torn.size_bytes(), 8U);
}

TEST(TensorTest, CopiesShareTheMemory) {
  auto memory = std::make_shared<std::vector<float>>(4, 1.0F);
  const std::weak_ptr<std::vector<float>> alive = memory;
  const Tensor::Segment bytes(reinterpret_cast<const unsigned char*>(memory->data()), 16);
  std::optional<Tensor> tensor(std::in_place, DType::kFp32, std::array<std::int64_t, 4>{1, 1, 1, 4}, bytes,
                               std::move(memory));
  const Tensor copy = *tensor;
  EXPECT_EQ(copy.data(), tensor->data());
  tensor.reset();
  EXPECT_FALSE(alive.expired());
}

TEST(DTypeTest, SizesOfElements) {
  EXPECT_EQ(SizeOf(DType::kFp32), 4U);
  EXPECT_EQ(SizeOf(DType::kFp16), 2U);
  EXPECT_EQ(SizeOf(DType::kBf16), 2U);
}

// The output of a reply lies anywhere in its message: a model's name of each length moves it.
TEST(SegmentsTest, OneSliceIsAlignedOrHasNoData) {
  FakeAttention service;
  int aligned = 0, not_aligned = 0;
  std::string hash;
  service.handler = [&](grpc::ServerContext*, const v1::ComputeAttentionRequest& r, v1::ComputeAttentionResponse& m) {
    std::string log_sum_exp;
    PlainAttention(r, *m.mutable_output(), log_sum_exp);
    m.set_dtype(v1::DTYPE_FP32);
    m.set_content_hash(hash);
    return grpc::Status::OK;
  };
  FakeServer server({&service});
  Client client = *Client::Create(server.target());
  TestRequest t;
  for (std::size_t length = 1; length <= 16; ++length) {
    hash.assign(length, 'x');
    t.request.output_in_segments = false;
    const auto gathered = client.Compute(t.request);
    ASSERT_TRUE(gathered.ok()) << gathered.status();
    ASSERT_NE(gathered->output.data(), nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(gathered->output.data()) % sizeof(float), 0U);
    t.request.output_in_segments = true;
    const auto reply = client.Compute(t.request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    if (reply->output.segments().size() != 1) continue;
    const auto at = reinterpret_cast<std::uintptr_t>(reply->output.segments()[0].data());
    const bool is_aligned = at % sizeof(float) == 0;
    ++(is_aligned ? aligned : not_aligned);
    EXPECT_EQ(reply->output.data() != nullptr, is_aligned);
    std::string bytes(reply->output.size_bytes(), '\0');
    reply->output.CopyTo(bytes.data());
    EXPECT_EQ(std::memcmp(bytes.data(), gathered->output.data(), bytes.size()), 0);
  }
  EXPECT_GT(not_aligned, 0) << "no reply was of the kind that this is about, beside " << aligned << " aligned ones";
}

TEST(BufferTest, IsAPageOfZerosForEveryTarget) {
  for (const char* target : {"127.0.0.1:1", kNobody}) {
    Client client = *Client::Create(target);
    for (const std::size_t size : {std::size_t{1}, std::size_t{5000}, std::size_t{3} << 20}) {
      const auto buffer = client.AllocateBuffer(size);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      EXPECT_EQ(buffer->size(), size);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->data()) % static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), 0U);
      const auto* const bytes = static_cast<const char*>(buffer->data());
      EXPECT_TRUE(std::all_of(bytes, bytes + size, [](char byte) { return byte == 0; }));
      const SharedBuffer copy = *buffer;
      EXPECT_EQ(copy.data(), buffer->data());
      EXPECT_EQ(copy.owner().get(), buffer->data());
    }
    const absl::Status too_large = client.AllocateBuffer(std::numeric_limits<std::size_t>::max() / 4).status();
    EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted) << too_large;
  }
}

TEST(CallbackTest, ARefusedRequestIsCalledBackHereBeforeTheCallReturns) {
  Client client = *Client::Create(kNobody);
  TestRequest t;
  t.request.model = "";
  int calls = 0;
  std::thread::id thread;
  client.ComputeAsync(t.request, {}, [&](const absl::StatusOr<ComputeReply>& reply) {
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kInvalidArgument);
    thread = std::this_thread::get_id();
    ++calls;
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(thread, std::this_thread::get_id());
}

TEST(CancellationTest, RunsEachOnceAndNotWhatWasRemoved) {
  Cancellation cancellation;
  int kept = 0, removed = 0, late = 0;
  cancellation.Add([&] { ++kept; });
  cancellation.Remove(cancellation.Add([&] { ++removed; }));
  EXPECT_FALSE(cancellation.cancelled());
  cancellation.Cancel();
  cancellation.Cancel();
  EXPECT_TRUE(cancellation.cancelled());
  cancellation.Add([&] { ++late; });
  EXPECT_EQ(kept, 1);
  EXPECT_EQ(removed, 0);
  EXPECT_EQ(late, 1);
}

TEST(ErrorDetailTest, GoesIntoAStatusAndComesOutAgain) {
  const absl::Status status = ErrorWithDetail(absl::StatusCode::kInvalidArgument, {"heads", "1 or more", "0"});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "heads: expected 1 or more, got 0");
  const auto detail = GetErrorDetail(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->field, "heads");
  EXPECT_EQ(detail->expected, "1 or more");
  EXPECT_EQ(detail->got, "0");
  EXPECT_FALSE(GetErrorDetail(absl::InvalidArgumentError("heads: expected 1 or more, got 0")).has_value());
  EXPECT_FALSE(GetErrorDetail(absl::OkStatus()).has_value());
}

TEST(OptionsTest, TheServerSeesUserAgentAndDeadline) {
  FakeAttention service;
  std::string user_agent;
  std::chrono::system_clock::time_point deadline;
  service.handler = [&](grpc::ServerContext* context, const v1::ComputeAttentionRequest&,
                        v1::ComputeAttentionResponse&) {
    const auto found = context->client_metadata().find("user-agent");
    if (found != context->client_metadata().end()) user_agent.assign(found->second.data(), found->second.size());
    deadline = context->deadline();
    return grpc::Status(grpc::StatusCode::ABORTED, "seen");
  };
  FakeServer server({&service});
  std::optional<ClientOptions> options(std::in_place);
  options->user_agent = "mine/1";
  Client client = *Client::Create(server.target(), *options);
  options.reset();  // the client keeps no reference to it
  TestRequest t;
  CallOptions call;
  call.deadline = absl::Now() + absl::Hours(1);
  EXPECT_EQ(client.Compute(t.request, call).status(), absl::AbortedError("seen"));
  EXPECT_THAT(user_agent, testing::StartsWith("mine/1 attnd-client/"));
  EXPECT_LE(absl::FromChrono(deadline), call.deadline + absl::Minutes(1));
}

}  // namespace
}  // namespace attnd::client
