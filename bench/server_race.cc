// Calls several attnd.v1 servers in turns through the C++ client, so that their times come from one run.
//
//   attnd_server_race --shape B,H,N,D [--dtype fp32|bf16] [--seconds S] [--rounds R] [--cpu C] TARGET TARGET...
//
// A target is a gRPC name. Each server gets the same seeded T5 table under the name "peer", and the servers' first
// replies must agree before anything is timed. Prints one JSON line per target: min_ms, p50_ms, p99_ms,
// bytes_per_second (request and reply, at p50), compute_ms (reported by the server, median), calls, and max_difference
// from the first target's reply.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
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
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "pin.h"

ABSL_FLAG(std::string, shape, "1,8,512,64", "batch,heads,length,head_dim");
ABSL_FLAG(std::string, dtype, "fp32", "fp32 or bf16");
ABSL_FLAG(double, seconds, 0.3, "length of one target's turn");
ABSL_FLAG(int, rounds, 8, "turns of each target");
ABSL_FLAG(int, cpu, -1, "CPU for this process; -1: any");

namespace attnd::bench {
namespace {

constexpr char kModel[] = "peer";
constexpr std::int64_t kBuckets = 32;
constexpr std::int64_t kMaxDistance = 128;

// A tensor in the dtype that is sent.
struct Buffer {
  std::vector<std::uint32_t> words;  // fp32, or two bf16
  std::size_t bytes = 0;
};

struct Shape {
  std::int64_t batch, heads, length, dim;
  std::int64_t elements() const { return batch * heads * length * dim; }
};

absl::StatusOr<Shape> ParseShape(const std::string& text) {
  std::vector<std::int64_t> sizes;
  for (const auto part : absl::StrSplit(text, ',')) {
    std::int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 1 || size > (1 << 20)) sizes.clear();
    sizes.push_back(size);
  }
  if (sizes.size() != 4) {
    return absl::InvalidArgumentError(absl::StrCat("--shape: expected four sizes in 1..1048576, got '", text, "'"));
  }
  return Shape{sizes[0], sizes[1], sizes[2], sizes[3]};
}

Buffer RandomTensor(const Shape& shape, DType dtype, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, deviation);
  const auto count = static_cast<std::size_t>(shape.elements());
  Buffer buffer;
  buffer.bytes = count * SizeOf(dtype);
  buffer.words.resize((buffer.bytes + 3) / 4);
  auto* out = reinterpret_cast<unsigned char*>(buffer.words.data());
  for (std::size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (dtype == DType::kBf16) bits >>= 16;  // rounds towards zero: any bfloat16 will do
    std::memcpy(out + i * SizeOf(dtype), &bits, SizeOf(dtype));
  }
  return buffer;
}

float ElementOf(const Buffer& buffer, DType dtype, std::size_t i) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, reinterpret_cast<const unsigned char*>(buffer.words.data()) + i * SizeOf(dtype), SizeOf(dtype));
  if (dtype == DType::kBf16) bits <<= 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The largest difference between two results; infinite if one has a NaN.
double LargestDifference(const Buffer& a, const Buffer& b, DType dtype) {
  double largest = 0;
  for (std::size_t i = 0; i < a.bytes / SizeOf(dtype); ++i) {
    const double difference = std::abs(static_cast<double>(ElementOf(a, dtype, i)) - ElementOf(b, dtype, i));
    if (std::isnan(difference)) return HUGE_VAL;
    largest = std::max(largest, difference);
  }
  return largest;
}

// The largest difference between two correct servers. With these inputs, logits stay below 40 and values below 6. Each
// server's error is at most 2 * 6 * (error of a logit) plus the rounding of the output, and PyTorch may hold bf16
// logits as bf16.
double AllowedDifference(DType dtype) { return dtype == DType::kBf16 ? 0.5 : 2e-3; }

Table MakeTable(std::int64_t heads, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, 2.0F);
  T5Buckets rule{kBuckets, kMaxDistance, std::vector<float>(static_cast<std::size_t>(kBuckets * heads))};
  for (float& value : rule.values) value = normal(random);
  return Table{"decoder", heads, false, std::move(rule)};
}

// One server and its measurements.
class Racer {
 public:
  static absl::StatusOr<std::unique_ptr<Racer>> Create(const std::string& target, const Table& table) {
    absl::StatusOr<Client> client = Client::Create(target);
    if (!client.ok()) return client.status();
    absl::StatusOr<Model> model = client->UploadTable(kModel, table, /*replace=*/true);
    if (!model.ok()) return model.status();
    return std::unique_ptr<Racer>(new Racer(target, *std::move(client)));
  }

  const std::string& target() const { return target_; }
  const Buffer& output() const { return output_; }
  void set_max_difference(double value) { max_difference_ = value; }

  // Makes one call. The output is in output().
  absl::Status Call(ComputeRequest request, std::size_t output_bytes, bool timed) {
    output_.bytes = output_bytes;
    output_.words.resize((output_bytes + 3) / 4);
    request.output = {output_.words.data(), output_bytes};
    const absl::Time start = absl::Now();
    const absl::StatusOr<ComputeReply> reply = client_.Compute(request);
    const absl::Duration elapsed = absl::Now() - start;
    if (!reply.ok()) return reply.status();
    if (timed) {
      times_.push_back(absl::ToDoubleMilliseconds(elapsed));
      compute_.push_back(absl::ToDoubleMilliseconds(reply->compute_time));
    }
    return absl::OkStatus();
  }

  nlohmann::json Line(std::size_t bytes) {
    std::sort(times_.begin(), times_.end());
    std::sort(compute_.begin(), compute_.end());
    const double p50 = times_[times_.size() / 2];
    return {{"target", target_},
            {"min_ms", times_.front()},
            {"p50_ms", p50},
            {"p99_ms", times_[times_.size() * 99 / 100]},
            {"bytes_per_second", static_cast<double>(bytes) / (p50 / 1e3)},
            {"compute_ms", compute_[compute_.size() / 2]},
            {"calls", times_.size()},
            {"max_difference", max_difference_}};
  }

 private:
  Racer(std::string target, Client client) : target_(std::move(target)), client_(std::move(client)) {}

  const std::string target_;
  Client client_;
  Buffer output_;
  std::vector<double> times_;
  std::vector<double> compute_;
  double max_difference_ = 0;
};

absl::Status CompareFirstReplies(std::vector<std::unique_ptr<Racer>>& racers, const ComputeRequest& request,
                                 std::size_t bytes) {
  for (std::unique_ptr<Racer>& racer : racers) {
    if (absl::Status called = racer->Call(request, bytes, /*timed=*/false); !called.ok()) {
      return absl::Status(called.code(), absl::StrCat(racer->target(), ": ", called.message()));
    }
    const double difference = LargestDifference(racers.front()->output(), racer->output(), request.q.dtype);
    racer->set_max_difference(difference);
    if (difference > AllowedDifference(request.q.dtype)) {
      return absl::DataLossError(absl::StrCat(racer->target(), " differs from ", racers.front()->target(), " by ",
                                              difference, ", allowed ", AllowedDifference(request.q.dtype)));
    }
  }
  return absl::OkStatus();
}

absl::Status TakeTurns(std::vector<std::unique_ptr<Racer>>& racers, const ComputeRequest& request, std::size_t bytes) {
  const absl::Duration turn = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    for (std::unique_ptr<Racer>& racer : racers) {
      const absl::Time begin = absl::Now();
      bool timed = false;  // The first call of a turn warms what the others have cooled.
      do {
        if (absl::Status called = racer->Call(request, bytes, timed); !called.ok()) return called;
      } while (!std::exchange(timed, true) || absl::Now() - begin < turn);
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& targets) {
  const absl::StatusOr<Shape> shape = ParseShape(absl::GetFlag(FLAGS_shape));
  if (!shape.ok()) return shape.status();
  const std::string name = absl::GetFlag(FLAGS_dtype);
  if (name != "fp32" && name != "bf16") {
    return absl::InvalidArgumentError(absl::StrCat("--dtype: expected fp32 or bf16, got '", name, "'"));
  }
  if (absl::GetFlag(FLAGS_rounds) < 1) return absl::InvalidArgumentError("--rounds: expected >= 1");
  const DType dtype = name == "bf16" ? DType::kBf16 : DType::kFp32;
  if (absl::Status pinned = Pin(absl::GetFlag(FLAGS_cpu)); !pinned.ok()) return pinned;

  std::mt19937 random(1);
  const Table table = MakeTable(shape->heads, random);
  const Buffer q = RandomTensor(*shape, dtype, 0.5F, random);
  const Buffer k = RandomTensor(*shape, dtype, 0.5F, random);
  const Buffer v = RandomTensor(*shape, dtype, 1.0F, random);
  const std::array<std::int64_t, 4> sizes{shape->batch, shape->heads, shape->length, shape->dim};
  ComputeRequest request;
  request.model = kModel;
  request.q = {q.words.data(), dtype, sizes};
  request.k = {k.words.data(), dtype, sizes};
  request.v = {v.words.data(), dtype, sizes};

  std::vector<std::unique_ptr<Racer>> racers;
  for (const std::string& target : targets) {
    absl::StatusOr<std::unique_ptr<Racer>> racer = Racer::Create(target, table);
    if (!racer.ok()) {
      return absl::Status(racer.status().code(), absl::StrCat(target, ": ", racer.status().message()));
    }
    racers.push_back(*std::move(racer));
  }
  if (absl::Status same = CompareFirstReplies(racers, request, q.bytes); !same.ok()) return same;
  if (absl::Status raced = TakeTurns(racers, request, q.bytes); !raced.ok()) return raced;
  for (std::unique_ptr<Racer>& racer : racers) std::cout << racer->Line(4 * q.bytes).dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Calls attnd.v1 servers in turns: attnd_server_race [flags] TARGET...");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  const std::vector<std::string> targets(rest.begin() + 1, rest.end());
  if (targets.empty()) {
    std::cerr << "expected at least one target\n";
    return 2;
  }
  const absl::Status status = attnd::bench::Run(targets);
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
