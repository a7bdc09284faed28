// attnd_bench steps [--keys N] [--rounds N]
//
// A decoding step of one layer (one row, 8 heads of 64, fp32) through the C++ client, by gRPC over a Unix socket and
// over the local socket. Measured in turns with a gRPC stream that echoes the same bytes and with the kernel alone. The
// shipped binary and the echo are separate processes.
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "pin.h"
#include "turns.h"
#include "wire_server.h"

ABSL_FLAG(std::int64_t, keys, 1000, "that a step attends to, give or take 8");
ABSL_FLAG(std::string, attnd, "", "the server's binary; empty: the one of this build");
ABSL_FLAG(int, rounds, 20, "turns of each measurement");
ABSL_FLAG(double, turn_seconds, 0.1, "length of a turn");
ABSL_FLAG(int, client_cpu, -1, "CPU of the client; -1: not pinned");
ABSL_FLAG(int, server_cpu, -1, "CPU of the servers and of the kernel alone; -1: not pinned");

namespace attnd::bench {
namespace {

constexpr std::int64_t kHeads = 8;
constexpr std::int64_t kDim = 64;
constexpr std::int64_t kFloats = kHeads * kDim;

// A session whose number of tokens stays within kSpread of --keys.
class Decoder {
 public:
  Decoder(const std::string& target, Transport transport, std::int64_t keys)
      : fewest_(keys - kSpread), most_(keys + kSpread) {
    for (std::size_t i = 0; i < values_.size(); ++i) values_[i] = std::sin(static_cast<float>(i));
    step_.q = step_.k = step_.v = {values_.data(), DType::kFp32, {1, kHeads, 1, kDim}};
    ClientOptions options;
    options.local_calls = transport == Transport::kLocal;
    absl::StatusOr<Client> client = Client::Create(target, options);
    if (!client.ok()) Die(client.status());
    client_ = std::make_unique<Client>(*std::move(client));
    SessionRequest opening;
    SessionLayer layer;
    layer.heads = kHeads;
    layer.head_dim = kDim;
    opening.model = "bench";
    opening.layers = {layer};
    opening.max_tokens = most_;
    absl::StatusOr<std::unique_ptr<Session>> session = client_->OpenSession(opening);
    if (!session.ok()) Die(session.status());
    session_ = *std::move(session);
    if (session_->facts().transport != transport) Die(absl::InternalError("the session goes the other way"));
    while (tokens_ < fewest_) Milliseconds();
    computed_ = {};
  }

  // Appends a token and attends; returns the time that took. At the largest number of tokens, some are cropped first,
  // which is not timed.
  double Milliseconds() {
    if (tokens_ == most_) {
      StepRequest cut;
      cut.truncate = {fewest_};
      Check(session_->Step(cut));
      tokens_ = fewest_;
    }
    absl::Duration computed;
    const double milliseconds = MillisecondsOf([&] {
      const absl::StatusOr<StepReply> reply = session_->Step(step_);
      Check(reply);
      computed = reply->compute_time;
    });
    ++tokens_;
    computed_.Add(absl::ToDoubleMilliseconds(computed));
    return milliseconds;
  }
  // The computing times that the server reports.
  Series& computed() { return computed_; }

 private:
  static constexpr std::int64_t kSpread = 8;

  static void Check(const absl::StatusOr<StepReply>& reply) {
    if (!reply.ok()) Die(reply.status());
  }

  const std::int64_t fewest_, most_;
  std::int64_t tokens_ = 0;
  std::array<float, kFloats> values_{};
  StepRequest step_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<Session> session_;
  Series computed_;
};

// A gRPC stream to a server that answers q, k and v with q.
class EchoStream {
 public:
  explicit EchoStream(const std::string& target)
      : stub_(v1::AttentionService::NewStub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))),
        stream_(stub_->StreamAttention(&context_)) {
    piece_.mutable_call()->set_dtype(v1::DTYPE_FP32);
    const std::string tensor(kFloats * sizeof(float), 'x');
    piece_.set_q(tensor);
    piece_.set_k(tensor);
    piece_.set_v(tensor);
  }
  ~EchoStream() {
    context_.TryCancel();
    stream_->Finish();
  }
  EchoStream(const EchoStream&) = delete;

  void Exchange() {
    piece_.set_id(piece_.id() + 1);
    if (!stream_->Write(piece_) || !stream_->Read(&answer_) || answer_.output().size() != piece_.q().size()) {
      Die(absl::UnavailableError("the echo does not answer"));
    }
  }

 private:
  const std::unique_ptr<v1::AttentionService::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::StreamAttentionRequest, v1::StreamAttentionResponse>> stream_;
  v1::StreamAttentionRequest piece_;
  v1::StreamAttentionResponse answer_;
};

Table MakeTable() {
  T5Buckets rule{32, 128, std::vector<float>(static_cast<std::size_t>(32 * kHeads))};
  for (std::size_t i = 0; i < rule.values.size(); ++i) rule.values[i] = std::cos(static_cast<float>(i));
  return Table{"decoder", kHeads, false, std::move(rule)};
}

nlohmann::ordered_json Measure(const std::filesystem::path& programs, const std::string& folder) {
  const std::int64_t keys = absl::GetFlag(FLAGS_keys);
  const int server_cpu = absl::GetFlag(FLAGS_server_cpu);
  const auto start = [&](bool echo) {
    WireServerOptions options;
    options.attnd_binary = absl::GetFlag(FLAGS_attnd);
    if (options.attnd_binary.empty()) options.attnd_binary = (programs.parent_path() / "server/attnd").string();
    options.echo_binary = (programs / "attnd_echo_server").string();
    options.folder = absl::StrCat(folder, echo ? "/echo" : "/attnd");
    std::filesystem::create_directory(options.folder);
    options.echo = echo;
    options.shared_memory = true;
    options.cpu = server_cpu;
    absl::StatusOr<std::unique_ptr<WireServer>> server = WireServer::Start(options);
    if (!server.ok()) Die(server.status());
    return *std::move(server);
  };
  const std::unique_ptr<WireServer> server = start(false), echo_server = start(true);
  if (const absl::Status pinned = Pin(absl::GetFlag(FLAGS_client_cpu)); !pinned.ok()) Die(pinned);
  const std::string& target = server->addresses().attnd;
  const auto model = Client::Create(target)->UploadTable("bench", MakeTable(), true);
  if (!model.ok()) Die(model.status());
  Decoder by_grpc(target, Transport::kGrpc, keys), by_local(target, Transport::kLocal, keys);
  EchoStream echo(echo_server->addresses().attnd);
  KernelAlone kernel((programs / "attnd_bench").string(),
                     {absl::StrCat("--shape=1,", kHeads, ",", keys, ",", kDim), "--queries=1"}, server_cpu);

  const double turn = absl::GetFlag(FLAGS_turn_seconds);
  Series grpc, local, echoed, computed;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    grpc.TurnOf(turn, [&] { return by_grpc.Milliseconds(); });
    local.TurnOf(turn, [&] { return by_local.Milliseconds(); });
    echoed.Turn(turn, [&] { echo.Exchange(); });
    kernel.Turn(turn, computed);
  }
  const auto us = [](Series& series) { return 1e3 * series.At(0.5); };
  const double wire = us(echoed), alone = us(computed);
  return {{"keys", keys},
          {"grpc_p50_us", us(grpc)},
          {"local_p50_us", us(local)},
          {"echo_p50_us", wire},
          {"kernel_p50_us", alone},
          {"grpc_computed_p50_us", us(by_grpc.computed())},
          {"local_computed_p50_us", us(by_local.computed())},
          {"grpc_to_echo_and_kernel", us(grpc) / (wire + alone)},
          {"local_beside_kernel_us", us(local) - alone},
          {"steps", grpc.count() + local.count()}};
}

int StepsMain(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a child that has ended is noticed when it is read from
  absl::SetProgramUsageMessage(
      "times a decoding step of one row through the C++ client and prints a line of JSON, in microseconds: by gRPC and "
      "over the local socket, in turns with a gRPC stream that echoes the same bytes and with the kernel alone. "
      "computed: what the server says that it took.");
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_keys) < 16 || absl::GetFlag(FLAGS_keys) > 1 << 20 || absl::GetFlag(FLAGS_rounds) < 1) {
    std::cerr << "attnd_bench steps: expected --keys of 16 to 1048576 and --rounds of at least 1\n";
    return 2;
  }
  std::string folder = (std::filesystem::temp_directory_path() / "attnd-steps-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) Die(absl::ErrnoToStatus(errno, folder));
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  std::cout << Measure(self.parent_path(), folder).dump() << std::endl;
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) { return attnd::bench::StepsMain(argc, argv); }
