// A gRPC server in this process that has AttentionService alone, and a channel to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/attention/service.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/counters.h"
#include "server/rpc/stall_watch.h"

namespace attnd::server {

// With one computing thread, whose kernel can be held. Cancels what is in flight when it is destroyed.
class AttentionServer {
 public:
  explicit AttentionServer(const Limits& limits = {}, const StallLimit& stall = {})
      : stalls(stall, counters, [](const std::string&) {}), engine(limits, registry, kernel.kernel(), 1) {
    AddTestModel(registry);
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel = server_->InProcessChannel(arguments);
    stub = v1::AttentionService::NewStub(channel);
  }
  ~AttentionServer() {
    kernel.Release();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  // Once the calls that have ended are accounted for: nobody is in the gate, nothing is in flight.
  void ExpectIdle() {
    EXPECT_TRUE(AwaitInside(0)) << gate.inside();
    EXPECT_EQ(AwaitNothingInflight(engine), 0);
  }

  // Waits until this many are in the gate.
  [[nodiscard]] bool AwaitInside(std::int64_t count) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (gate.inside() != count && absl::Now() < deadline) std::this_thread::yield();
    return gate.inside() == count;
  }

  HeldKernel kernel;
  model::Registry registry{model::RegistryOptions{}};
  Counters counters;
  StallWatch stalls;
  AttentionEngine engine;
  CallGate gate;
  AttentionService service{engine, gate, stalls};
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::AttentionService::Stub> stub;

 private:
  std::unique_ptr<grpc::Server> server_;
};

// The deadline of a call whose end is waited for.
inline std::chrono::system_clock::time_point Patience() {
  return std::chrono::system_clock::now() + absl::ToChronoSeconds(kPatience);
}

// The deadline of a call that ends some other way: too late to end it while a test waits.
inline std::chrono::system_clock::time_point FarDeadline() { return Patience() + std::chrono::minutes(10); }

}  // namespace attnd::server
