// A gRPC server in this process whose one method is a function of the test's, and calls of it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "pending_call.h"

namespace attnd::server {

inline constexpr char kOneMethod[] = "/attnd.v1.ServerService/GetServerInfo";

class OneCallServer {
 public:
  // Receives the context and the answer, which is an empty message at first.
  using Handler = std::function<grpc::ServerUnaryReactor*(grpc::CallbackServerContext&, grpc::ByteBuffer*)>;

  explicit OneCallServer(Handler handler) : service_(std::move(handler)) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
  }
  ~OneCallServer() { Stop(); }

  // Cancels what is under way, and returns when every call is over.
  void Stop() {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  grpc::Server& server() { return *server_; }
  const std::string& address() const { return address_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  class Service final : public v1::ServerService::WithRawCallbackMethod_GetServerInfo<v1::ServerService::Service> {
   public:
    explicit Service(Handler handler) : handler_(std::move(handler)) {}
    grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                            grpc::ByteBuffer* response) override {
      const grpc::Slice empty;
      *response = grpc::ByteBuffer(&empty, 1);
      return handler_(*context, response);
    }

   private:
    const Handler handler_;
  };

  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
};

// A call of such a server.
class OneCall : public test::PendingCall {
 public:
  explicit OneCall(OneCallServer& server, const Headers& headers = {})
      : PendingCall(server.channel(), kOneMethod, "", absl::Seconds(20), headers) {}
};

}  // namespace attnd::server
