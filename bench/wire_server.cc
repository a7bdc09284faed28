#include "wire_server.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "attnd/v1/attention.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "server/codec.h"
#include "server/server.h"
#include "server/status.h"
#include "server/warm_allocator.h"

namespace attnd::bench {
namespace {

using Message = grpc::ByteBuffer;

void AppendVarint(std::uint64_t value, std::string& to) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

// `header`, and as its output the bytes of `tensor`, which are slices of `slices`.
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
    auto piece = server::Decode<v1::StreamAttentionRequest>(in_);
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
    const auto call = server::Decode<v1::ComputeAttentionRequest>(*request);
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

// The child: starts the servers, tells their addresses, and waits to be killed.
[[noreturn]] void Serve(const WireServerOptions& options, int tell) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (options.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(options.cpu), &set);
    sched_setaffinity(0, sizeof(set), &set);
  }
  server::KeepFreedMemory();
  const auto address = [&](const char* name) {
    return options.tcp ? std::string("127.0.0.1:0") : "unix:" + options.folder + "/" + name;
  };
  std::string main = address("attnd"), empty = address("empty");
  Echo echo;
  Empty empty_service;
  std::unique_ptr<grpc::Server> echo_server;
  absl::StatusOr<std::unique_ptr<server::Server>> attnd;
  if (options.echo) {
    echo_server = Listen(echo, options.settings, main);
  } else {
    server::Options server_options;
    server_options.listen = {main};
    server_options.threads = 1;
    server_options.shared_memory = options.shared_memory;
    attnd = server::Server::Start(server_options);
    if (!attnd.ok()) _exit(1);
    main = (*attnd)->addresses()[0];
  }
  const std::unique_ptr<grpc::Server> empty_server = Listen(empty_service, {}, empty);
  if (empty_server == nullptr || (options.echo && echo_server == nullptr)) _exit(1);
  const std::string told = main + "\n" + empty + "\n";
  if (write(tell, told.data(), told.size()) != static_cast<ssize_t>(told.size())) _exit(1);
  while (true) pause();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WireServer>> WireServer::Start(const WireServerOptions& options) {
  int ends[2];
  if (pipe(ends) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) Serve(options, ends[1]);
  close(ends[1]);
  std::array<char, 512> buffer;
  const ssize_t size = read(ends[0], buffer.data(), buffer.size());
  close(ends[0]);
  const std::string told(buffer.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const std::size_t middle = told.find('\n');
  if (middle == std::string::npos) {
    waitpid(pid, nullptr, 0);
    return absl::UnavailableError("the server did not start");
  }
  return std::unique_ptr<WireServer>(
      new WireServer(pid, {told.substr(0, middle), told.substr(middle + 1, told.size() - middle - 2)}));
}

double WireServer::CpuMilliseconds() const {
  clockid_t clock;
  timespec now{};
  if (clock_getcpuclockid(pid_, &clock) == 0) clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

WireServer::~WireServer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace attnd::bench
