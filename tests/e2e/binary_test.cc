// The attnd binary as its users meet it: flags, messages, exit codes, signals.

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "process.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Result {
  int code;
  std::string output;
};

Result RunBinary(const std::vector<std::string>& arguments) {
  Process process(arguments);
  const int code = process.Wait();
  return {code, process.output()};
}

TEST(BinaryTest, HelpShowsOurFlagsAndTheirDefaults) {
  for (const char* flag : {"--help", "-help", "-h"}) {
    const Result help = RunBinary({flag});
    EXPECT_EQ(help.code, 0);
    for (const char* text : {"--listen ", "127.0.0.1:50051", "--model_root ", "--threads ", "--kernel ",
                             "--drain_seconds ", "--max_request_bytes ", "256MiB", "--log_level "}) {
      EXPECT_THAT(help.output, HasSubstr(text));
    }
    EXPECT_THAT(help.output, Not(HasSubstr("undefok"))) << "no flags of libraries";
    EXPECT_LT(help.output.size(), 5000u);
  }
}

// gRPC's last user gone, its shutdown waited up to 10 s for a thread that had just sent a large answer: as long as
// container runtimes wait before they kill.
TEST(BinaryTest, EndsSoonAfterItsLastLineAlsoAfterLargeAnswers) {
  for (int round = 0; round < 3; ++round) {
    Process process({"--listen=127.0.0.1:0", "--threads=1"});
    const auto stub = v1::AttentionService::NewStub(NewChannel(process.WaitForAddress()));
    v1::ComputeAttentionRequest request;
    request.set_model("book");
    request.set_batch(1);
    request.set_heads(1);
    request.set_query_length(4096);
    request.set_key_length(1);
    request.set_head_dim(1);
    request.set_value_head_dim(2048);
    request.set_dtype(v1::DTYPE_FP32);
    request.set_q(RandomFloats(4096, 1));
    request.set_k(RandomFloats(1, 2));
    request.set_v(RandomFloats(2048, 3));
    for (int call = 0; call < 3; ++call) {
      grpc::ClientContext context;
      v1::ComputeAttentionResponse response;
      const grpc::Status status = stub->ComputeAttention(&context, request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
    }
    process.Signal(SIGTERM);
    ASSERT_TRUE(process.WaitForOutput("attnd stopped"));
    const absl::Time stopped = absl::Now();
    EXPECT_EQ(process.Wait(), 0);
    EXPECT_LT(absl::Now() - stopped, absl::Seconds(4));
  }
}

TEST(BinaryTest, VersionIsShown) {
  const Result version = RunBinary({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.output, testing::MatchesRegex("attnd [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(BinaryTest, BadCommandLines) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"--no_such_flag"}, "no_such_flag"},
      {{"--threads=many"}, "threads"},
      {{"--threads=-1"}, "--threads: expected 0 to 4096, got -1"},
      {{"--max_request_bytes=2GiB"}, "--max_request_bytes: expected 0 to 2147483647, got 2147483648"},
      {{"--max_request_bytes=lots"}, "256MiB"},
      {{"--max_dim=0"}, "--max_dim: expected 1 to"},
      {{"--drain_seconds=-1"}, "--drain_seconds: expected a number from 0, got -1"},
      {{"--drain_seconds=nan"}, "--drain_seconds: expected a number from 0"},
      {{"--log_level=loud"}, "--log_level: expected trace, debug"},
      {{"--listen="}, "--listen: expected at least one address"},
      {{"--listen=nowhere"}, "--listen: expected host:port, [v6]:port or unix:path"},
      {{"--listen=127.0.0.1:65536"}, "--listen: expected host:port, [v6]:port or unix:path"},
      {{"--listen=127.0.0.1:"}, "--listen: expected host:port, [v6]:port or unix:path"},
      {{"--listen=:50051"}, "--listen: expected host:port, [v6]:port or unix:path"},
      {{"--listen=127.0.0.1:0,,"}, "--listen: expected host:port, [v6]:port or unix:path"},
      {{"model.json"}, "expected flags only, got \"model.json\""},
  };
  for (const auto& c : kCases) {
    const Result result = RunBinary(c.arguments);
    EXPECT_EQ(result.code, 2) << c.arguments[0] << "\n" << result.output;
    EXPECT_THAT(result.output, HasSubstr(c.message));
    EXPECT_THAT(result.output, HasSubstr("Try 'attnd --help'."));
  }
}

TEST(BinaryTest, WhatKeepsItFromStarting) {
  TestServer other;
  const struct {
    std::vector<std::string> arguments;
    std::vector<std::string> messages;
  } kCases[] = {
      {{"--listen=" + other.address()}, {"cannot listen on " + other.address(), "in use"}},
      {{"--listen=127.0.0.1:0," + other.address()}, {"cannot listen on " + other.address()}},
      {{"--listen=no-such-host.invalid:1"}, {"cannot listen on no-such-host.invalid:1"}},
      {{"--listen=unix:/no/such/folder/attnd.sock"}, {"/no/such/folder/attnd.sock.lock: No such file or directory"}},
      {{"--listen=unix:/tmp/" + std::string(200, 'x')}, {"expected a path of 1 to 107 bytes"}},
      {{"--listen=127.0.0.1:0", "--model_root=/no/such/folder"},
       {"--model_root: /no/such/folder: No such file or directory"}},
      {{"--listen=127.0.0.1:0", "--kernel=abacus"}, {"abacus"}},
  };
  for (const auto& c : kCases) {
    const Result result = RunBinary(c.arguments);
    EXPECT_EQ(result.code, 1) << c.arguments[0] << "\n" << result.output;
    for (const std::string& message : c.messages) EXPECT_THAT(result.output, HasSubstr(message));
  }
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(other.Compute(ValidRequest(), &response).ok());
}

v1::ComputeAttentionRequest BookRequest(std::int64_t length) {
  v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = length, .key_length = length, .head_dim = 32});
  request.set_model("book");
  return request;
}

// The embedded model has a number of heads of its own.
v1::ComputeAttentionRequest OneHead(v1::ComputeAttentionRequest request) {
  request.set_heads(1);
  request.set_first_head(0);
  for (std::string* tensor : {request.mutable_q(), request.mutable_k(), request.mutable_v()}) {
    tensor->resize(tensor->size() / kHeads);
  }
  return request;
}

TEST(BinaryTest, OneLineAtStartAndTwoAtStop) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Process process({"--listen=127.0.0.1:0,127.0.0.1:0", "--threads=3"});
    const std::string address = process.WaitForAddress();
    ASSERT_THAT(address, HasSubstr("127.0.0.1:"));
    EXPECT_NE(address, "127.0.0.1:0");
    EXPECT_THAT(process.output(), HasSubstr("3 threads"));
    EXPECT_THAT(process.output(), HasSubstr("kernel "));
    process.Signal(signal);
    EXPECT_EQ(process.Wait(), 0);
    EXPECT_THAT(process.output(), HasSubstr("attnd stopped"));
  }
}

// The process's only child.
pid_t ChildOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/task/", pid, "/children"));
  pid_t child = -1;
  file >> child;
  return child;
}

// As in a container: the kernel ignores a signal to the first process of a PID namespace whose action is the default.
TEST(BinaryTest, ASecondSignalEndsTheFirstProcessOfANamespaceToo) {
  if (geteuid() != 0) GTEST_SKIP() << "only root may make a PID namespace";
  for (const int signal : {SIGTERM, SIGINT}) {
    Process process({"--pid", "--fork", "--kill-child", AttndBinary(), "--listen=127.0.0.1:0", "--threads=1",
                     "--drain_seconds=100000"},
                    {"/usr/bin/unshare", {}});
    const std::string address = process.WaitForAddress();
    if (address.empty()) GTEST_SKIP() << "no PID namespace here: " << process.output();
    const pid_t attnd = ChildOf(process.pid());
    ASSERT_GT(attnd, 0);
    // A piece that holds the stop up; once the second is answered, the first has come.
    const auto stub = v1::AttentionService::NewStub(NewChannel(address));
    grpc::ClientContext context;
    const auto stream = stub->StreamAttention(&context);
    v1::ComputeAttentionRequest endless =
        ValidRequest({.batch = 1, .query_length = 100000, .key_length = 100000, .head_dim = 8});
    endless.set_model("book");
    endless = OneHead(endless);
    v1::StreamAttentionRequest piece;
    piece.set_id(1);
    piece.set_q(endless.q());
    piece.set_k(endless.k());
    piece.set_v(endless.v());
    *piece.mutable_call() = endless;
    for (const int tensor : {100, 101, 102}) {
      piece.mutable_call()->GetReflection()->ClearField(piece.mutable_call(),
                                                        endless.GetDescriptor()->FindFieldByNumber(tensor));
    }
    EXPECT_TRUE(stream->Write(piece));
    v1::StreamAttentionRequest refused;
    refused.set_id(2);
    EXPECT_TRUE(stream->Write(refused));
    v1::StreamAttentionResponse answer;
    EXPECT_TRUE(stream->Read(&answer));
    EXPECT_EQ(answer.id(), 2U);
    kill(attnd, SIGTERM);
    EXPECT_TRUE(process.WaitForOutput("attnd stops"));
    kill(attnd, signal);
    EXPECT_EQ(process.Wait(), 128 + signal) << process.output();
    EXPECT_THAT(process.output(), HasSubstr("attnd ends at once"));
    EXPECT_FALSE(stream->Finish().ok());
  }
}

// Clients call without pause while the server is told to stop. Whatever it has accepted it answers correctly; what it
// has not accepted fails with UNAVAILABLE, or, if it comes just as gRPC shuts down, with CANCELLED.
TEST(BinaryTest, StoppingLosesNoAcceptedCall) {
  for (int round = 0; round < 3; ++round) {
    Process process({"--listen=127.0.0.1:0", "--threads=2", "--drain_seconds=60"});
    const std::string address = process.WaitForAddress();
    ASSERT_NE(address, "");
    const v1::ComputeAttentionRequest request = OneHead(BookRequest(256));
    std::string expected;
    {
      const auto stub = v1::AttentionService::NewStub(NewChannel(address));
      grpc::ClientContext context;
      v1::ComputeAttentionResponse response;
      const grpc::Status status = stub->ComputeAttention(&context, request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      expected = response.output();
    }
    std::atomic<int> answered{0};
    std::atomic<int> refused{0};
    std::vector<std::thread> clients;
    for (int c = 0; c < 8; ++c) {
      clients.emplace_back([&] {
        const auto stub = v1::AttentionService::NewStub(NewChannel(address));
        while (true) {
          grpc::ClientContext context;
          v1::ComputeAttentionResponse response;
          const grpc::Status status = stub->ComputeAttention(&context, request, &response);
          if (!status.ok()) {
            EXPECT_THAT(status.error_code(), testing::AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED))
                << status.error_message();
            refused.fetch_add(1);
            return;
          }
          EXPECT_EQ(response.output(), expected);
          answered.fetch_add(1);
        }
      });
    }
    EXPECT_TRUE(test::Becomes([&] { return answered.load() >= 50; }, test::Patience()));
    process.Signal(SIGTERM);
    EXPECT_EQ(process.Wait(), 0) << process.output();
    for (std::thread& client : clients) client.join();
    EXPECT_EQ(refused.load(), 8);
    EXPECT_THAT(process.output(), HasSubstr("every accepted call was answered"));
  }
}

}  // namespace
}  // namespace attnd::e2e
