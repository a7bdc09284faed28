// The real attnd in an address space of 2 GiB (ulimit -v), and calls that do not fit into it.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process.h"
#include "raw_caller.h"
#include "raw_region.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr rlim_t kAddressSpace = rlim_t{2} << 30;

// A child that is started while this lives has so little address space.
class LittleAddressSpace {
 public:
  LittleAddressSpace() {
    getrlimit(RLIMIT_AS, &before_);
    rlimit little = before_;
    little.rlim_cur = kAddressSpace;
    EXPECT_EQ(setrlimit(RLIMIT_AS, &little), 0);
  }
  ~LittleAddressSpace() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

class NoMemoryBinaryTest : public testing::Test {
 protected:
  void SetUp() override {
    {
      const LittleAddressSpace little;
      process_ = std::make_unique<Process>(std::vector<std::string>{
          absl::StrCat("--listen=127.0.0.1:0,unix:", folder_.path(), "/s"), "--threads=2", "--max_result_bytes=2000MiB",
          "--max_inflight_bytes=64GiB", "--max_shared_bytes=64GiB"});
    }
    address_ = process_->WaitForAddress();
    ASSERT_NE(address_, "") << process_->output();
    stub_ = v1::AttentionService::NewStub(NewChannel(address_));
  }

  static v1::ComputeAttentionRequest Request(std::int64_t batch, std::int64_t queries, std::int64_t value_dim) {
    v1::ComputeAttentionRequest request;
    request.set_bias(v1::BIAS_NONE);
    request.set_batch(batch);
    request.set_heads(1);
    request.set_query_length(queries);
    request.set_key_length(1);
    request.set_head_dim(1);
    request.set_value_head_dim(value_dim);
    request.set_dtype(v1::DTYPE_FP32);
    request.set_q(std::string(static_cast<std::size_t>(batch * queries) * 4, '\0'));
    request.set_k(std::string(static_cast<std::size_t>(batch) * 4, '\0'));
    request.set_v(std::string(static_cast<std::size_t>(batch * value_dim) * 4, '\0'));
    return request;
  }
  // A result of nearly 2 GiB.
  static v1::ComputeAttentionRequest LargeResult() { return Request(1, 125000, 4096); }
  // More of whatever the server keeps of each sequence than of anything else.
  static v1::ComputeAttentionRequest ManySequences() { return Request(14 << 20, 1, 1); }

  grpc::Status Compute(const v1::ComputeAttentionRequest& request) {
    grpc::ClientContext context;
    v1::ComputeAttentionResponse response;
    return stub_->ComputeAttention(&context, request, &response);
  }

  // One call as the only piece of a stream.
  grpc::Status Stream(const v1::ComputeAttentionRequest& request) {
    grpc::ClientContext context;
    const auto stream = stub_->StreamAttention(&context);
    stream->Write(PieceOf(0, request));
    stream->WritesDone();
    v1::StreamAttentionResponse answer;
    const bool answered = stream->Read(&answer);
    const std::string message = answer.message();
    const auto code = static_cast<StatusCode>(answer.code());
    while (stream->Read(&answer)) {
    }
    const grpc::Status status = stream->Finish();
    if (!status.ok()) return status;
    EXPECT_TRUE(answered);
    return grpc::Status(code, message);
  }

  std::int64_t ResidentKib() const {
    std::ifstream status(absl::StrCat("/proc/", process_->pid(), "/status"));
    for (std::string word; status >> word;) {
      std::int64_t kib = 0;
      if (word == "VmRSS:" && status >> kib) return kib;
    }
    return 0;
  }

  void ExpectStopsWell() {
    process_->Signal(SIGTERM);
    EXPECT_EQ(process_->Wait(), 0) << process_->output();
    EXPECT_THAT(process_->output(), HasSubstr("every accepted call was answered"));
  }

  const test::TempFolder folder_;
  std::unique_ptr<Process> process_;
  std::string address_;
  std::unique_ptr<v1::AttentionService::Stub> stub_;
};

void ExpectExhausted(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("the server has no memory for"));
}

TEST_F(NoMemoryBinaryTest, WhatDoesNotFitIsRefusedAndLeavesNothing) {
  const v1::ComputeAttentionRequest large = LargeResult();
  const v1::ComputeAttentionRequest many = ManySequences();
  std::int64_t resident = 0;
  for (int round = 0; round < 4; ++round) {
    ExpectExhausted(Compute(large));
    ExpectExhausted(Stream(large));
    // Fits where little is kept of a sequence.
    for (const grpc::Status& status : {Compute(many), Stream(many)}) {
      if (!status.ok()) ExpectExhausted(status);
    }
    EXPECT_TRUE(Compute(Request(2, 3, 4)).ok());
    if (round == 1) resident = ResidentKib();
  }
  EXPECT_LT(ResidentKib() - resident, 64 << 10);
  ExpectStopsWell();
}

TEST_F(NoMemoryBinaryTest, StopsWithCallsUnderWay) {
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      const v1::ComputeAttentionRequest request = i % 2 == 0 ? ManySequences() : LargeResult();
      while (true) {
        const grpc::Status status = i < 2 ? Compute(request) : Stream(request);
        if (status.error_code() == StatusCode::UNAVAILABLE || status.error_code() == StatusCode::CANCELLED) return;
        if (!status.ok()) ExpectExhausted(status);
        answered.fetch_add(1);
      }
    });
  }
  EXPECT_TRUE(test::Becomes([&] { return answered.load() >= 8; }, test::Patience()));
  ExpectStopsWell();
  for (std::thread& caller : callers) caller.join();
}

TEST_F(NoMemoryBinaryTest, ARegionThatCannotBeMapped) {
  const test::RawCaller caller(folder_.path() + "/s.shm");
  constexpr std::uint64_t kBytes = std::uint64_t{3} << 30;
  const shm::UniqueFd fd = test::SealedMemfd(kBytes);
  const shm::Request request = test::RegisterRequest(kBytes);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(caller.Send(&request, sizeof(request), {fd.get()}));
    const std::optional<shm::Reply> reply = caller.Receive();
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->code, static_cast<int>(StatusCode::RESOURCE_EXHAUSTED)) << reply->message;
    EXPECT_THAT(std::string(reply->message), HasSubstr("the server has no memory to map a region of"));
  }
  ExpectStopsWell();
}

}  // namespace
}  // namespace attnd::e2e
