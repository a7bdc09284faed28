// A gRPC server in this process that has Probes alone, and a channel to it.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "grpc_calls.h"
#include "grpcpp/grpcpp.h"
#include "server/probes/probes.h"

namespace attnd::server {

inline constexpr std::chrono::seconds kPatience{20};

class ProbesServer {
 public:
  ProbesServer() {
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(-1);
    probes.Register(builder);
    // Not in the process: a transport that holds nothing back would end a write only when it is read.
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    server_ = builder.BuildAndStart();
    channel = test::NewChannel("127.0.0.1:" + std::to_string(port));
  }
  ~ProbesServer() { Shutdown(std::chrono::seconds(0)); }

  // Waits for the streams to end for this long.
  void Shutdown(std::chrono::seconds patience) {
    server_->Shutdown(std::chrono::system_clock::now() + patience);
    server_->Wait();
  }

  // With a deadline that keeps a failing test from hanging.
  static std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    return context;
  }

  Probes probes{{"a.Service", "another.Service"}};
  std::shared_ptr<grpc::Channel> channel;

 private:
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attnd::server
