// attnd_echo_server --listen ADDRESS --empty ADDRESS [--channel_settings NAME=NUMBER,...]
//
// Measures the wire without arithmetic. Serves two services with attnd's allocator and codec: AttentionService, which
// answers with q instead of computing, and ServerService, which answers calls of generated messages with an empty one.
// Prints the two addresses, one per line, and serves until its parent ends.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "channel_settings.h"
#include "grpcpp/grpcpp.h"
#include "heap/heap.h"
#include "server/rpc/status.h"
#include "server/wire/codec.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:0", "address of the echo; port 0: any free one");
ABSL_FLAG(std::string, empty, "127.0.0.1:0", "address of the empty calls");
ABSL_FLAG(std::vector<std::string>, channel_settings, {}, "settings of the echo's gRPC channels, name=number");

namespace attnd::bench {
namespace {

using Message = grpc::ByteBuffer;

constexpr std::int64_t kMaxHeaderBytes = std::int64_t{1} << 20;

void AppendVarint(std::uint64_t value, std::string& to) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

// `header`, with `tensor` as its output; the tensor's bytes are in `slices`, which the result shares.
Message WithOutput(const google::protobuf::MessageLite& header, const server::TensorBytes& tensor,
                   const std::vector<grpc::Slice>& slices) {
  std::string first = header.SerializeAsString();
  constexpr int kLengthDelimited = 2;
  AppendVarint(static_cast<std::uint64_t>(v1::ComputeAttentionResponse::kOutputFieldNumber) << 3 | kLengthDelimited,
               first);
  AppendVarint(tensor.size, first);
  std::vector<grpc::Slice> out{grpc::Slice(first)};
  for (const kernel::Segment& segment : tensor.segments) {
    for (const grpc::Slice& slice : slices) {
      const auto* begin = reinterpret_cast<const std::byte*>(slice.begin());
      if (segment.data < begin || segment.data >= begin + slice.size()) continue;
      const auto at = static_cast<std::size_t>(segment.data - begin);
      out.push_back(slice.sub(at, at + segment.size));
      break;
    }
  }
  return Message(out.data(), out.size());
}

class EchoStream : public grpc::ServerBidiReactor<Message, Message> {
 public:
  EchoStream() { StartRead(&in_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    auto piece = server::Decode<v1::StreamAttentionRequest>(in_, kMaxHeaderBytes);
    if (!piece.ok()) return Finish(server::ToGrpc(piece.status()));
    in_.Clear();
    v1::StreamAttentionResponse header;
    header.set_id(piece->header.id());
    header.mutable_result()->set_dtype(piece->header.call().dtype());
    out_ = WithOutput(header, piece->tensors().q, piece->split.slices);
    StartWrite(&out_);
  }
  void OnWriteDone(bool ok) override {
    if (ok)
      StartRead(&in_);
    else
      Finish(grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  Message in_, out_;
};

class Echo final : public v1::AttentionService::WithRawCallbackMethod_ComputeAttention<
                       v1::AttentionService::WithRawCallbackMethod_StreamAttention<v1::AttentionService::Service>> {
 public:
  grpc::ServerUnaryReactor* ComputeAttention(grpc::CallbackServerContext* context, const Message* request,
                                             Message* response) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    const auto call = server::Decode<v1::ComputeAttentionRequest>(*request, kMaxHeaderBytes);
    if (call.ok()) {
      v1::ComputeAttentionResponse header;
      header.set_dtype(call->header.dtype());
      *response = WithOutput(header, call->tensors().q, call->split.slices);
    }
    reactor->Finish(server::ToGrpc(call.status()));
    return reactor;
  }
  grpc::ServerBidiReactor<Message, Message>* StreamAttention(grpc::CallbackServerContext*) override {
    return new EchoStream();
  }
};

class Empty final : public v1::ServerService::CallbackService {
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest*,
                                          v1::GetServerInfoResponse*) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::unique_ptr<grpc::Server> Listen(grpc::Service& service, const ChannelSettings& settings, std::string& address) {
  grpc::ServerBuilder builder;
  for (const auto& [name, value] : settings) builder.AddChannelArgument(name, value);
  builder.SetMaxReceiveMessageSize(-1);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!address.starts_with("unix:")) address = "127.0.0.1:" + std::to_string(port);
  return server;
}

int Serve() {
  const absl::StatusOr<ChannelSettings> settings = ParseChannelSettings(absl::GetFlag(FLAGS_channel_settings));
  if (!settings.ok()) {
    std::cerr << "attnd_echo_server: " << settings.status().message() << std::endl;
    return 2;
  }
  std::string main = absl::GetFlag(FLAGS_listen), empty = absl::GetFlag(FLAGS_empty);
  Echo echo;
  Empty empty_service;
  const std::unique_ptr<grpc::Server> echo_server = Listen(echo, *settings, main);
  const std::unique_ptr<grpc::Server> empty_server = Listen(empty_service, {}, empty);
  if (echo_server == nullptr || empty_server == nullptr) {
    std::cerr << "attnd_echo_server: cannot listen on " << main << " and " << empty << std::endl;
    return 1;
  }
  std::cout << main << "\n" << empty << std::endl;
  while (true) pause();
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  absl::ParseCommandLine(argc, argv);
  attnd::heap::Configure();
  return attnd::bench::Serve();
}
