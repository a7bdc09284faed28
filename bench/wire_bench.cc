// attnd_bench wire --shape B,H,N,D --dtype fp32|bf16 --transport tcp|uds|shm|local --mode auto|unary|stream --clients C
// [--in_flight N] [--echo] [--copy] [--piece_bytes B] [--pages huge|small]
//
// The shipped binary (or the echo) on one CPU and its clients on another. Measured in turns with them, for comparison:
// the kernel alone on the server's CPU, an echo of the same bytes over a plain socket, a copy in memory, and an empty
// call of generated messages.
//
// Times are also given as CPU time, which other processes disturb less: on a busy machine, the scheduler favours a
// server that sleeps between calls over a kernel that never sleeps, and a call can seem faster than its own arithmetic.
// Such a run prints "disturbed": true, and its ratios of wall time mean nothing.

#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "attnd/client.h"
#include "attnd/v1/server.grpc.pb.h"
#include "channel_settings.h"
#include "client/src/attention_caller.h"
#include "client/src/local_mux.h"
#include "client/src/retry.h"
#include "grpcpp/grpcpp.h"
#include "memory/huge_pages.h"
#include "pages.h"
#include "socket_floor.h"
#include "turns.h"
#include "wire_server.h"

ABSL_FLAG(std::string, shape, "1,8,2048,64", "batch,heads,length,head_dim");
ABSL_FLAG(std::string, dtype, "fp32", "fp32 or bf16");
ABSL_FLAG(std::string, pages, "huge", "huge or small: the pages that tensors and sockets' buffers lie on");
ABSL_FLAG(std::string, transport, "tcp",
          "tcp, uds, shm or local: calls over the local socket, in turns with gRPC over the Unix socket");
ABSL_FLAG(std::string, mode, "auto", "auto (the client library's choice), unary or stream");
ABSL_FLAG(int, clients, 1, "callers at once");
ABSL_FLAG(int, in_flight, 0,
          "0: each caller waits for its call. Else the number of asynchronous calls that it makes at once; it waits "
          "for all of "
          "them, and times are those of all of them");
ABSL_FLAG(bool, echo, false, "the wire without the arithmetic");
ABSL_FLAG(bool, copy, false, "with shm and local: tensors in ordinary memory, which the library copies");
ABSL_FLAG(int64_t, piece_bytes, 0, "with stream: bytes of a piece; 0: the library's choice");
ABSL_FLAG(
    std::vector<std::string>, channel_settings,
    std::vector<std::string>({"grpc.experimental.tcp_read_chunk_size=262144",
                              "grpc.experimental.tcp_min_read_chunk_size=262144"}),
    "settings of gRPC's channel, name=number, of the client and of the echo's server; by default those that server "
    "and client have");
ABSL_FLAG(std::string, attnd, "", "the server's binary; empty: the one of this build");
ABSL_FLAG(std::string, server_pages, "huge", "huge or small: the pages that the server's heap may lie on");
ABSL_FLAG(int, rounds, 10, "turns of each measurement");
ABSL_FLAG(double, turn_seconds, 0.25, "length of a turn");
ABSL_FLAG(int, client_cpu, 0, "CPU of the clients");
ABSL_FLAG(int, server_cpu, 1, "CPU of the server; -1 for both: not pinned");

namespace attnd::bench {
namespace {

struct Shape {
  std::int64_t batch, heads, length, dim;
  std::int64_t elements() const { return batch * heads * length * dim; }
};

void Pin(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  sched_setaffinity(0, sizeof(set), &set);
}

// CPU time that this process has used, in milliseconds.
double CpuMilliseconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

Table MakeTable(std::int64_t heads) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  T5Buckets rule{32, 128, std::vector<float>(static_cast<std::size_t>(32 * heads))};
  for (float& value : rule.values) value = normal(random);
  return Table{"decoder", heads, false, std::move(rule)};
}

// The kind that --pages names. CheckFlags() has validated it.
PageKind Pages() { return *ParsePageKind(absl::GetFlag(FLAGS_pages)); }

// One caller, with its tensors.
class Caller {
 public:
  Caller(const std::string& target, const Shape& shape, DType dtype, const std::string& transport) {
    const std::string mode = absl::GetFlag(FLAGS_mode);
    client::StreamPlan plan;
    if (absl::GetFlag(FLAGS_piece_bytes) > 0) plan.piece_bytes = absl::GetFlag(FLAGS_piece_bytes);
    if (mode == "unary") plan.piece_bytes = std::int64_t{1} << 60;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto settings = ParseChannelSettings(absl::GetFlag(FLAGS_channel_settings));
    if (!settings.ok()) Die(settings.status());
    for (const auto& [name, value] : *settings) arguments.SetInt(name, value);
    local_ = transport == "local";
    const bool shared = local_ || transport == "shm";
    caller_ = std::make_shared<client::AttentionCaller>(
        std::make_shared<client::RetryPolicy>(
            RetryOptions(), grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments)),
        shared ? client::SharedMemory::ForTarget(target) : nullptr, plan,
        local_ ? client::LocalCalls::ForTarget(target, "attnd_bench", client::Keepalive::Of(kKeepalive, kKeepalive))
               : nullptr,
        local_ ? client::LocalMux::ForTarget(target, "attnd_bench", client::Keepalive::Of(kKeepalive, kKeepalive))
               : nullptr);
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * SizeOf(dtype);
    const bool in_place = shared && !absl::GetFlag(FLAGS_copy);
    const auto at_once = static_cast<std::size_t>(std::max(1, absl::GetFlag(FLAGS_in_flight)));
    for (SharedBuffer& buffer : buffers_) {
      const std::size_t size = &buffer == &buffers_[3] ? bytes * at_once : bytes;
      buffer = in_place ? *caller_->AllocateBuffer(size) : Ordinary(size);
      Fill(buffer, dtype);
    }
    request_.model = "bench";
    const std::array<std::int64_t, 4> sizes{shape.batch, shape.heads, shape.length, shape.dim};
    request_.q = {buffers_[0].data(), dtype, sizes};
    request_.k = {buffers_[1].data(), dtype, sizes};
    request_.v = {buffers_[2].data(), dtype, sizes};
    request_.output = {buffers_[3].data(), bytes};
  }

  void Call() {
    const int at_once = absl::GetFlag(FLAGS_in_flight);
    if (at_once == 0) return Check(caller_->Compute(request_, {}));
    absl::BlockingCounter left(at_once);
    for (int i = 0; i < at_once; ++i) {
      ComputeRequest request = request_;
      request.output.data =
          static_cast<char*>(request_.output.data) + static_cast<std::size_t>(i) * request_.output.size_bytes;
      caller_->ComputeAsync(std::move(request), {}, [&](const absl::StatusOr<ComputeReply>& reply) {
        Check(reply);
        left.DecrementCount();
      });
    }
    left.Wait();
  }
  const ComputeRequest& request() const { return request_; }

  // The smaller fraction of k and v. Memory shared with a server is on huge pages if the system has them.
  double HugeFractionOfKeys() const {
    return std::min(memory::HugeFraction(buffers_[1].data(), buffers_[1].size()),
                    memory::HugeFraction(buffers_[2].data(), buffers_[2].size()));
  }

 private:
  static constexpr absl::Duration kKeepalive = absl::Seconds(30);

  void Check(const absl::StatusOr<ComputeReply>& reply) const {
    if (!reply.ok()) Die(reply.status());
    if (local_ && reply->transport != Transport::kLocal) Die(absl::InternalError("a call went by gRPC"));
  }
  static SharedBuffer Ordinary(std::size_t bytes) {
    const auto buffer = std::make_shared<PageBuffer>(bytes, Pages());
    return SharedBuffer(std::shared_ptr<void>(buffer, buffer->data()), bytes);
  }
  static void Fill(SharedBuffer& buffer, DType dtype) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0F, 0.4F);
    auto* bytes = static_cast<unsigned char*>(buffer.data());
    for (std::size_t i = 0; i < buffer.size() / SizeOf(dtype); ++i) {
      const float value = normal(random);
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      if (dtype == DType::kBf16) bits >>= 16;
      std::memcpy(bytes + i * SizeOf(dtype), &bits, SizeOf(dtype));
    }
  }

  bool local_ = false;
  std::shared_ptr<client::AttentionCaller> caller_;
  std::array<SharedBuffer, 4> buffers_;
  ComputeRequest request_;
};

Shape ParseShape() {
  std::vector<std::int64_t> sizes;
  for (const auto part : absl::StrSplit(absl::GetFlag(FLAGS_shape), ',')) {
    std::int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 1 || size > (1 << 20)) sizes.clear();
    sizes.push_back(size);
  }
  if (sizes.size() != 4) Die(absl::InvalidArgumentError("--shape: expected four sizes in 1..1048576"));
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

void CheckOneOf(const char* flag, const std::string& value, const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  Die(absl::InvalidArgumentError(
      absl::StrCat("--", flag, ": expected one of ", absl::StrJoin(allowed, ", "), ", got \"", value, "\"")));
}

void CheckFlags() {
  CheckOneOf("transport", absl::GetFlag(FLAGS_transport), {"tcp", "uds", "shm", "local"});
  if (absl::GetFlag(FLAGS_echo) && absl::GetFlag(FLAGS_transport) == "local") {
    Die(absl::InvalidArgumentError("--echo: not with --transport=local"));
  }
  CheckOneOf("mode", absl::GetFlag(FLAGS_mode), {"auto", "unary", "stream"});
  CheckOneOf("dtype", absl::GetFlag(FLAGS_dtype), {"fp32", "bf16"});
  CheckOneOf("pages", absl::GetFlag(FLAGS_pages), {"huge", "small"});
  CheckOneOf("server_pages", absl::GetFlag(FLAGS_server_pages), {"huge", "small"});
  const int clients = absl::GetFlag(FLAGS_clients);
  if (clients < 1 || clients > 256) {
    Die(absl::InvalidArgumentError(absl::StrCat("--clients: expected 1..256, got ", clients)));
  }
  const int in_flight = absl::GetFlag(FLAGS_in_flight);
  if (in_flight < 0 || in_flight > 256) {
    Die(absl::InvalidArgumentError(absl::StrCat("--in_flight: expected 0..256, got ", in_flight)));
  }
  if (absl::GetFlag(FLAGS_rounds) < 1) Die(absl::InvalidArgumentError("--rounds: expected at least 1"));
}

SocketEchoOptions FloorOptions(std::int64_t tensor_bytes) {
  SocketEchoOptions options;
  options.kind = absl::GetFlag(FLAGS_transport) == "tcp" ? SocketKind::kTcp : SocketKind::kUnix;
  options.tensor_bytes = tensor_bytes;
  options.client_cpu = absl::GetFlag(FLAGS_client_cpu);
  options.server_cpu = absl::GetFlag(FLAGS_server_cpu);
  options.pages = Pages();
  return options;
}

// The folder of this program and of the other benchmarks of its build.
std::filesystem::path Folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

WireServerOptions ServerOptions(const std::string& folder) {
  WireServerOptions options;
  options.attnd_binary = absl::GetFlag(FLAGS_attnd);
  if (options.attnd_binary.empty()) options.attnd_binary = (Folder().parent_path() / "server/attnd").string();
  options.echo_binary = (Folder() / "attnd_echo_server").string();
  options.folder = folder;
  options.tcp = absl::GetFlag(FLAGS_transport) == "tcp";
  options.shared_memory = absl::GetFlag(FLAGS_transport) == "shm" || absl::GetFlag(FLAGS_transport) == "local";
  options.echo = absl::GetFlag(FLAGS_echo);
  options.cpu = absl::GetFlag(FLAGS_server_cpu);
  options.pages = *ParsePageKind(absl::GetFlag(FLAGS_server_pages));
  options.channel_settings = absl::GetFlag(FLAGS_channel_settings);
  return options;
}

}  // namespace

int WireMain(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a child that has ended is noticed when it is read from
  absl::ParseCommandLine(argc, argv);
  CheckFlags();
  const Shape shape = ParseShape();
  const DType dtype = absl::GetFlag(FLAGS_dtype) == "bf16" ? DType::kBf16 : DType::kFp32;
  const std::string transport = absl::GetFlag(FLAGS_transport);
  const bool echo = absl::GetFlag(FLAGS_echo);
  std::string folder = (std::filesystem::temp_directory_path() / "attnd-wire-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) Die(absl::ErrnoToStatus(errno, folder));
  const auto server = WireServer::Start(ServerOptions(folder));
  if (!server.ok()) Die(server.status());
  const WireAddresses& addresses = (*server)->addresses();
  Pin(absl::GetFlag(FLAGS_client_cpu));
  if (!echo) {
    const auto model = Client::Create(addresses.attnd)->UploadTable("bench", MakeTable(shape.heads), true);
    if (!model.ok()) Die(model.status());
  }

  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
    callers.push_back(std::make_unique<Caller>(addresses.attnd, shape, dtype, transport));
    callers.back()->Call();
  }
  // The comparison for local calls: gRPC over the Unix socket to the same server.
  const auto by_grpc = transport == "local" ? std::make_unique<Caller>(addresses.attnd, shape, dtype, "uds") : nullptr;
  if (by_grpc != nullptr) by_grpc->Call();
  const std::vector<std::string> problem = {absl::StrCat("--shape=", absl::GetFlag(FLAGS_shape)),
                                            absl::StrCat("--dtype=", absl::GetFlag(FLAGS_dtype)),
                                            absl::StrCat("--pages=", absl::GetFlag(FLAGS_pages))};
  const auto kernel = echo ? nullptr
                           : std::make_unique<KernelAlone>((Folder() / "attnd_bench").string(), problem,
                                                           absl::GetFlag(FLAGS_server_cpu));
  const std::int64_t tensor_bytes = static_cast<std::int64_t>(callers[0]->request().output.size_bytes);
  auto floor = SocketEcho::Create(FloorOptions(tensor_bytes));
  if (!floor.ok()) Die(floor.status());
  const auto empty =
      v1::ServerService::NewStub(grpc::CreateChannel(addresses.empty, grpc::InsecureChannelCredentials()));

  const double turn = absl::GetFlag(FLAGS_turn_seconds);
  Series calls, grpc_calls, alone, socket, empty_calls;
  double copy = 0, server_cpu = 0, client_cpu = 0, kernel_cpu = 0;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    server_cpu -= (*server)->CpuMilliseconds();
    client_cpu -= CpuMilliseconds();
    std::vector<Series> each(callers.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 1; i < callers.size(); ++i) {
      threads.emplace_back([&, i] { each[i].Turn(turn, [&] { callers[i]->Call(); }); });
    }
    each[0].Turn(turn, [&] { callers[0]->Call(); });
    for (std::thread& thread : threads) thread.join();
    server_cpu += (*server)->CpuMilliseconds();
    client_cpu += CpuMilliseconds();
    for (const Series& series : each) calls.Add(series);
    if (by_grpc != nullptr) grpc_calls.Turn(turn, [&] { by_grpc->Call(); });
    if (kernel != nullptr) kernel_cpu += kernel->Turn(turn, alone);
    socket.Turn(turn, [&] {
      if (const auto done = (*floor)->Exchange(); !done.ok()) Die(done.status());
    });
    empty_calls.Turn(turn / 4, [&] {
      grpc::ClientContext context;
      v1::GetServerInfoResponse response;
      empty->GetServerInfo(&context, {}, &response);
    });
    copy = std::max(copy, MeasureCopyBytesPerSecond(tensor_bytes, 5, Pages()));
  }

  const int at_once = std::max(1, absl::GetFlag(FLAGS_in_flight));
  const double bytes = static_cast<double>(4 * tensor_bytes) * static_cast<double>(callers.size()) * at_once;
  const auto rate = [](double total, double milliseconds) { return total / (milliseconds / 1e3); };
  nlohmann::json line = {{"shape", absl::GetFlag(FLAGS_shape)},
                         {"dtype", absl::GetFlag(FLAGS_dtype)},
                         {"transport", transport},
                         {"mode", absl::GetFlag(FLAGS_mode)},
                         {"clients", callers.size()},
                         {"in_flight", absl::GetFlag(FLAGS_in_flight)},
                         {"calls_per_second", rate(static_cast<double>(callers.size()) * at_once, calls.At(0.5))},
                         {"echo", echo},
                         {"copy", absl::GetFlag(FLAGS_copy)},
                         {"tensor_bytes", tensor_bytes},
                         {"pages", absl::GetFlag(FLAGS_pages)},
                         {"huge_fraction", callers[0]->HugeFractionOfKeys()},
                         {"socket_huge_fraction", (*floor)->RequestHugeFraction()},
                         {"calls", calls.count()},
                         {"p50_ms", calls.At(0.5)},
                         {"p99_ms", calls.At(0.99)},
                         {"min_ms", calls.At(0)},
                         {"bytes_per_second", rate(bytes, calls.At(0.5))},
                         {"best_bytes_per_second", rate(bytes, calls.At(0))},
                         {"socket_p50_ms", socket.At(0.5)},
                         {"socket_min_ms", socket.At(0)},
                         {"of_socket_p50", socket.At(0.5) / calls.At(0.5)},
                         {"of_socket_min", socket.At(0) / calls.At(0)},
                         {"memcpy_bytes_per_second", copy},
                         {"server_cpu_ms", server_cpu / static_cast<double>(calls.count())},
                         {"client_cpu_ms", client_cpu / static_cast<double>(calls.count())},
                         {"empty_call_p50_ms", empty_calls.At(0.5)},
                         {"to_empty_call_p50", calls.At(0.5) / empty_calls.At(0.5)}};
  if (by_grpc != nullptr) {
    line["grpc_p50_ms"] = grpc_calls.At(0.5);
    line["grpc_calls_per_second"] = rate(at_once, grpc_calls.At(0.5));
    line["grpc_min_ms"] = grpc_calls.At(0);
    line["to_grpc_p50"] = calls.At(0.5) / grpc_calls.At(0.5);
    line["to_grpc_min"] = calls.At(0) / grpc_calls.At(0);
  }
  if (!echo) {
    const double kernel_each = kernel_cpu / static_cast<double>(alone.count());
    line["kernel_cpu_ms"] = kernel_each;
    line["server_cpu_to_kernel_cpu"] = server_cpu / static_cast<double>(calls.count()) / kernel_each;
    line["all_cpu_to_kernel_cpu"] = (server_cpu + client_cpu) / static_cast<double>(calls.count()) / kernel_each;
    line["disturbed"] = calls.At(0.5) < alone.At(0.5) || calls.At(0) < alone.At(0);
    line["kernel_p50_ms"] = alone.At(0.5);
    line["kernel_min_ms"] = alone.At(0);
    line["to_kernel_p50"] = calls.At(0.5) / alone.At(0.5);
    line["to_kernel_min"] = calls.At(0) / alone.At(0);
  }
  std::cout << line.dump() << std::endl;
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace attnd::bench

int main(int argc, char** argv) { return attnd::bench::WireMain(argc, argv); }
