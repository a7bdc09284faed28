// Calls one server through the C++ client, in turns that another program requests. That program can thus measure this
// client and another one in the same run (bench/python_table.sh).
//
//   attnd_call_loop --target TARGET --model MODEL --shape B,H,N,D [--in_place] [--cpu C]
//
// Each line on standard input is the length of a turn in seconds. After each turn, prints one line of JSON: "ms", the
// time of each call, and "compute_ms", the computing time that the server reports for it. With --in_place, tensors are
// in memory shared with the server, and the library chooses the transport. Without it, everything is sent by gRPC.

#include <array>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
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
#include "pin.h"
#include "shape_flag.h"

ABSL_FLAG(std::string, target, "", "gRPC name of the server");
ABSL_FLAG(std::string, model, "t5-tiny", "a model of as many heads as the shape");
ABSL_FLAG(std::string, shape, "1,8,128,64", "batch,heads,length,head_dim; fp32");
ABSL_FLAG(bool, in_place, false, "tensors in memory shared with the server");
ABSL_FLAG(int, cpu, -1, "CPU for this process; -1: any");

namespace attnd::bench {
namespace {

using Clock = std::chrono::steady_clock;

// The four tensors of a call: q, k, v and the output.
class Tensors {
 public:
  static absl::StatusOr<Tensors> Create(Client& client, const std::array<std::int64_t, 4>& shape, bool in_place) {
    Tensors tensors;
    const auto elements = static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0F, 0.4F);
    for (int i = 0; i < 4; ++i) {
      if (in_place) {
        absl::StatusOr<SharedBuffer> buffer = client.AllocateBuffer(elements * sizeof(float));
        if (!buffer.ok()) return buffer.status();
        tensors.shared_.push_back(*std::move(buffer));
        tensors.data_.push_back(static_cast<float*>(tensors.shared_.back().data()));
      } else {
        tensors.own_.push_back(std::make_unique<std::vector<float>>(elements));
        tensors.data_.push_back(tensors.own_.back()->data());
      }
      for (std::size_t j = 0; j < elements; ++j) tensors.data_.back()[j] = normal(random);
    }
    tensors.request_.model = absl::GetFlag(FLAGS_model);
    tensors.request_.q = {tensors.data_[0], DType::kFp32, shape};
    tensors.request_.k = {tensors.data_[1], DType::kFp32, shape};
    tensors.request_.v = {tensors.data_[2], DType::kFp32, shape};
    tensors.request_.output = {tensors.data_[3], elements * sizeof(float)};
    return tensors;
  }
  const ComputeRequest& request() const { return request_; }

 private:
  std::vector<SharedBuffer> shared_;
  std::vector<std::unique_ptr<std::vector<float>>> own_;
  std::vector<float*> data_;
  ComputeRequest request_;
};

absl::StatusOr<nlohmann::json> Turn(Client& client, const ComputeRequest& request, double seconds) {
  std::vector<double> times;
  std::vector<double> computed;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = Clock::now();
    const absl::StatusOr<ComputeReply> reply = client.Compute(request);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    if (!reply.ok()) return reply.status();
    computed.push_back(absl::ToDoubleMilliseconds(reply->compute_time));
  } while (Clock::now() < end);
  return nlohmann::json{{"ms", times}, {"compute_ms", computed}};
}

absl::Status Run() {
  const auto shape = ParseShape(absl::GetFlag(FLAGS_shape));
  if (!shape.ok()) return shape.status();
  if (absl::Status pinned = Pin(absl::GetFlag(FLAGS_cpu)); !pinned.ok()) return pinned;
  ClientOptions options;
  options.shared_memory = options.local_calls = absl::GetFlag(FLAGS_in_place);
  absl::StatusOr<Client> client = Client::Create(absl::GetFlag(FLAGS_target), options);
  if (!client.ok()) return client.status();
  const absl::StatusOr<Tensors> tensors = Tensors::Create(*client, *shape, absl::GetFlag(FLAGS_in_place));
  if (!tensors.ok()) return tensors.status();
  std::string line;
  while (std::getline(std::cin, line)) {
    double seconds = 0;
    if (!absl::SimpleAtod(line, &seconds)) return absl::InvalidArgumentError(absl::StrCat("no seconds: '", line, "'"));
    const absl::StatusOr<nlohmann::json> turn = Turn(*client, tensors->request(), seconds);
    if (!turn.ok()) return turn.status();
    std::cout << *turn << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("attnd_call_loop --target TARGET --shape B,H,N,D: see bench/call_loop.cc");
  absl::ParseCommandLine(argc, argv);
  if (const absl::Status status = attnd::bench::Run(); !status.ok()) {
    std::cerr << "attnd_call_loop: " << status << std::endl;
    return 1;
  }
  return 0;
}
