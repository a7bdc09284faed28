// Servers in this process, and calls that hold them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "grpc/grpc.h"
#include "grpc_calls.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/serving/server.h"

namespace attnd::server {

// Keeps gRPC initialized until the process ends. If its last user were destroyed right after a large write, gRPC would
// shut down and wait ten seconds for one of its own pollers.
[[maybe_unused]] inline const bool kGrpcIsUp = (grpc_init(), true);

inline constexpr absl::Duration kPatience = absl::Seconds(30);

inline std::chrono::system_clock::time_point Patience() {
  return std::chrono::system_clock::now() + absl::ToChronoSeconds(kPatience);
}

inline Options TestOptions() {
  Options options;
  options.listen = {"127.0.0.1:0"};
  options.threads = 1;
  options.drain = kPatience;
  return options;
}

inline std::unique_ptr<Server> Started(const Options& options = TestOptions()) {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options);
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

// A call to the embedded model "book", which has one head.
inline v1::ComputeAttentionRequest BookRequest(std::int64_t queries = 1, std::int64_t value_head_dim = 1) {
  v1::ComputeAttentionRequest request;
  request.set_model("book");
  request.set_batch(1);
  request.set_heads(1);
  request.set_query_length(queries);
  request.set_key_length(1);
  request.set_head_dim(1);
  request.set_value_head_dim(value_head_dim);
  request.set_dtype(v1::DTYPE_FP32);
  request.set_q(std::string(static_cast<std::size_t>(queries) * 4, '\0'));
  request.set_k(std::string(4, '\0'));
  request.set_v(std::string(static_cast<std::size_t>(value_head_dim) * 4, '\0'));
  return request;
}

inline grpc::StatusCode Compute(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(Patience());
  v1::ComputeAttentionResponse response;
  return v1::AttentionService::NewStub(channel)->ComputeAttention(&context, BookRequest(), &response).error_code();
}

// The health service's answer: SERVING, NOT_SERVING, or the error's code.
inline std::string Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::ClientContext context;
  context.set_deadline(Patience());
  const absl::StatusOr<std::int64_t> status = test::ServingStatusOf(channel, service, context);
  if (!status.ok()) return absl::StrCat("error ", static_cast<int>(status.status().code()));
  return *status == 1 ? "SERVING" : *status == 2 ? "NOT_SERVING" : "another";
}

inline const char* const kServingNames[] = {"", "attnd.v1.AttentionService", "attnd.v1.ModelService",
                                            "attnd.v1.ServerService"};

// A stream of one piece whose answer is not read at first. The call stays in flight until Read.
class UnreadStream {
 public:
  explicit UnreadStream(Server& server) : channel_(test::NewChannel(server.addresses()[0])) {
    context_.set_deadline(Patience());
    stream_ = v1::AttentionService::NewStub(channel_)->StreamAttention(&context_);
    // The answer has 16 MiB, which is more than the transport buffers.
    v1::ComputeAttentionRequest request = BookRequest(4096, 1024);
    v1::StreamAttentionRequest piece;
    piece.set_q(request.q());
    piece.set_k(request.k());
    piece.set_v(request.v());
    request.clear_q();
    request.clear_k();
    request.clear_v();
    *piece.mutable_call() = request;
    EXPECT_TRUE(stream_->Write(piece));
    stream_->WritesDone();
    const absl::Time deadline = absl::Now() + kPatience;
    while (server.calls_in_flight() == 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_GT(server.calls_in_flight(), 0);
  }

  // Reads the answer. Returns true if it is OK and nothing follows it.
  bool Read() {
    v1::StreamAttentionResponse answer;
    return stream_->Read(&answer) && answer.code() == 0 && !stream_->Read(&answer);
  }
  grpc::Status Finish() { return stream_->Finish(); }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream_;
};

}  // namespace attnd::server
