#include "session_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/blocking_counter.h"
#include "cache/page_shape.h"
#include "cache/sequences.h"
#include "heap/heap.h"
#include "kernel/attention.h"
#include "kernel/registry.h"
#include "machine_peak.h"
#include "pages.h"
#include "schedule/attention_work.h"
#include "schedule/scheduler.h"
#include "tensor/half.h"

ABSL_FLAG(int, rounds, 9, "how often each is timed, in turns");
ABSL_FLAG(std::int64_t, keys, 4096,
          "of each row; sources and rows that are reordered have half as many. A multiple of 256");

namespace attnd::bench {
namespace {

using cache::LayerShape;
using cache::PageShape;
using cache::Sequences;
using kernel::Attention;
using tensor::DType;

constexpr std::int64_t kHeads = 8;
constexpr std::int64_t kDim = 64;
constexpr std::int64_t kRows = 32;
constexpr int kThreads = 2;

// Random numbers for tokens or queries.
std::vector<std::byte> Numbers(std::int64_t count, DType dtype, std::uint32_t seed) {
  const std::size_t size = tensor::SizeOf(dtype);
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size);
  std::minstd_rand random(seed);
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    const float value = static_cast<float>(random()) / static_cast<float>(std::minstd_rand::max()) - 0.5F;
    const std::uint16_t half = dtype == DType::kF16 ? tensor::HalfFromFloat(value) : tensor::BFloat16FromFloat(value);
    std::memcpy(bytes.data() + at, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, size);
  }
  return bytes;
}

// Sequences of equal length, filled in chunks, as prompts are.
std::unique_ptr<Sequences> Fill(std::int64_t sequences, std::int64_t tokens, std::int64_t layers, DType dtype) {
  const std::vector<LayerShape> shapes(static_cast<std::size_t>(layers), {kHeads, kDim, kDim});
  auto made = Sequences::Create(*PageShape::Make(shapes, dtype), sequences, tokens + cache::kPageTokens);
  if (!made.ok()) {
    std::cerr << "attnd_bench session: " << made.status().message() << "\n";
    std::exit(1);
  }
  constexpr std::int64_t kChunk = 128;
  const std::vector<std::byte> chunk = Numbers(kHeads * kChunk * kDim, dtype, 5);
  const kernel::Segment segment{chunk.data(), chunk.size()};
  const kernel::TensorView view{&segment, 1, dtype, 0, kChunk * kDim, kDim};
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(sequences), kChunk);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    for (std::int64_t token = 0; token < tokens; token += kChunk) {
      if (!(*made)->Append(layer, counts, view, view).ok()) std::exit(1);
    }
  }
  (*made)->Commit();
  return *std::move(made);
}

// A decode step: one query per row; each `beams` consecutive rows read the same sequence.
class Step {
 public:
  Step(const Sequences& sequences, std::int64_t beams) {
    const DType dtype = sequences.shape().dtype();
    const std::int64_t rows = sequences.sequences() * beams;
    for (std::int64_t row = 0; row < rows; ++row) lists_.push_back(sequences.PagesOf(row / beams));
    queries_ = Numbers(rows * kHeads * kDim, dtype, 9);
    output_.resize(queries_.size());
    segment_ = {queries_.data(), queries_.size()};
    attention_.batch = rows;
    attention_.heads = attention_.kv_heads = kHeads;
    attention_.query_length = 1;
    attention_.key_length = sequences.length(0, 0);
    attention_.head_dim = attention_.value_head_dim = kDim;
    attention_.q = {&segment_, 1, dtype, kHeads * kDim, kDim, kDim};
    attention_.k = sequences.shape().Keys(0, lists_.data());
    attention_.v = sequences.shape().Values(0, lists_.data());
    attention_.out = {output_.data(), dtype, kHeads * kDim, kDim, kDim};
    attention_.mask = kernel::Mask::kNone;
    attention_.scale = 1;
    attention_.product_precision = kernel::ProductPrecision::kBF16;
    read_elements_ = sequences.sequences() * kHeads * attention_.key_length * 2 * kDim;
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  const Attention& attention() const { return attention_; }
  double read_bytes() const {
    return static_cast<double>(read_elements_) * static_cast<double>(tensor::SizeOf(attention_.q.dtype));
  }

 private:
  std::int64_t read_elements_ = 0;
  std::vector<std::byte> queries_, output_;
  std::vector<const std::byte* const*> lists_;
  kernel::Segment segment_{};
  Attention attention_{};
};

double MillisecondsOf(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// Submits all steps at once and waits for the last one.
double Run(schedule::Scheduler& scheduler, const kernel::Kernel& kernel,
           const std::vector<std::unique_ptr<Step>>& steps) {
  return MillisecondsOf([&] {
    absl::BlockingCounter left(static_cast<int>(steps.size()));
    for (const std::unique_ptr<Step>& step : steps) {
      scheduler.Submit(schedule::MakeAttentionWork(step->attention(), kernel), {},
                       [&left](const schedule::Outcome&) { left.DecrementCount(); });
    }
    left.Wait();
  });
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The median of the ratios of each round: a slow phase of the machine slows all measurements of a round.
double Ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return Median(std::move(ratios));
}

// One measurement: some sequences, and the steps that read them at the same time.
struct Contest {
  std::string name;
  std::vector<std::unique_ptr<Sequences>> sequences;
  std::vector<std::unique_ptr<Step>> steps;
  std::vector<double> milliseconds = {};
  std::vector<double> loop_milliseconds = {};  // the read loop on the first session's pages, scaled to all bytes

  double read_bytes() const {
    double bytes = 0;
    for (const std::unique_ptr<Step>& step : steps) bytes += step->read_bytes();
    return bytes;
  }
};

Contest Make(const std::string& name, std::int64_t sessions, std::int64_t sequences, std::int64_t keys, DType dtype,
             std::int64_t beams = 1) {
  Contest contest{name, {}, {}};
  for (std::int64_t session = 0; session < sessions; ++session) {
    contest.sequences.push_back(Fill(sequences, keys, 1, dtype));
    contest.steps.push_back(std::make_unique<Step>(*contest.sequences.back(), beams));
  }
  return contest;
}

// Microseconds to reorder the rows of six layers: a permutation, and beams of which half continue twice. Ends the
// program if a page is copied.
nlohmann::ordered_json Reorder(std::int64_t tokens, int rounds) {
  constexpr std::int64_t kBeams = 16;
  const std::unique_ptr<Sequences> sequences = Fill(kBeams, tokens, 6, DType::kF32);
  std::vector<std::int32_t> turned, doubled;
  for (std::int32_t row = 0; row < kBeams; ++row) {
    turned.push_back((row + 1) % kBeams);
    doubled.push_back(row / 2);
  }
  const std::int64_t pages = sequences->pages_in_use();
  std::vector<double> turn, twice;
  for (int round = 0; round < 20 * rounds; ++round) {
    turn.push_back(1e3 * MillisecondsOf([&] {
                     sequences->Gather(turned);
                     sequences->Commit();
                   }));
    twice.push_back(1e3 * MillisecondsOf([&] { sequences->Gather(doubled); }));
    if (sequences->pages_in_use() > pages) std::exit(1);
    sequences->Rollback();
  }
  return {{"permutation_us", Median(turn)}, {"half_go_on_twice_us", Median(twice)}};
}

nlohmann::ordered_json Measure(const kernel::Kernel& kernel, std::int64_t keys, int rounds) {
  enum { kF32, kF16, kBF16, kMany, kOne, kSources, kBeams, kCount };
  std::vector<Contest> contests(kCount);
  contests[kF32] = Make("fp32", 1, kRows, keys, DType::kF32);
  contests[kF16] = Make("fp16", 1, kRows, keys, DType::kF16);
  contests[kBF16] = Make("bf16", 1, kRows, keys, DType::kBF16);
  contests[kMany] = Make("64 sessions of 1 row", 64, 1, keys, DType::kF32);
  contests[kOne] = Make("1 session of 64 rows", 1, 64, keys, DType::kF32);
  contests[kSources] = Make("1 row a source", 1, kRows, keys / 2, DType::kF32);
  contests[kBeams] = Make("4 rows a source", 1, kRows, keys / 2, DType::kF32, 4);

  schedule::Scheduler scheduler(kThreads);
  MachinePeak peak(kernel, kThreads, PageKind::kHuge);
  for (Contest& contest : contests) Run(scheduler, kernel, contest.steps);
  for (int round = 0; round < rounds; ++round) {
    for (Contest& contest : contests) {
      contest.milliseconds.push_back(Run(scheduler, kernel, contest.steps));
      const Sequences& first = *contest.sequences.front();
      const double speed = peak.MeasureReading(*first.PagesOf(0), static_cast<std::size_t>(first.bytes_in_use()));
      contest.loop_milliseconds.push_back(contest.read_bytes() / speed / 1e6);
    }
  }
  nlohmann::ordered_json rows;
  for (const Contest& contest : contests) {
    rows[contest.name] = {{"ms_median", Median(contest.milliseconds)},
                          {"gigabytes_per_second", contest.read_bytes() / Median(contest.milliseconds) / 1e6},
                          {"of_read_loop", Ratio(contest.loop_milliseconds, contest.milliseconds)}};
  }
  const auto ratio = [&](int a, int b) {
    return Ratio(contests[static_cast<std::size_t>(a)].milliseconds,
                 contests[static_cast<std::size_t>(b)].milliseconds);
  };
  return {{"kernel", std::string(kernel::NameOf(kernel))},
          {"page_tokens", cache::kPageTokens},
          {"steps", rows},
          {"fp16_speed_of_fp32", ratio(kF32, kF16)},
          {"bf16_speed_of_fp32", ratio(kF32, kBF16)},
          {"sessions_speed_of_rows", ratio(kOne, kMany)},
          {"beams_time_of_one", ratio(kBeams, kSources)},
          {"reorder", Reorder(keys / 2, rounds)}};
}

}  // namespace

int SessionMain(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "times decode steps (8 heads of 64, one query a row, two threads) over keys and values in pages, in turns with a "
      "loop that reads the same pages, and prints a line of JSON. of_read_loop: the loop's time for as many bytes, "
      "over "
      "the step's; each ratio is the median of those of the rounds.");
  absl::ParseCommandLine(argc, argv);
  heap::Configure();
  const absl::StatusOr<const kernel::Kernel*> kernel = kernel::ChooseKernel("");
  const std::int64_t keys = absl::GetFlag(FLAGS_keys);
  std::string fault;
  if (!kernel.ok()) fault = kernel.status().ToString();
  if (absl::GetFlag(FLAGS_rounds) < 1) fault = "--rounds: expected at least 1";
  if (keys < 256 || keys > 1 << 20 || keys % 256 != 0) fault = "--keys: expected a multiple of 256, at most 1048576";
  if (!fault.empty()) {
    std::cerr << "attnd_bench session: " << fault << "\n";
    return 2;
  }
  std::cout << Measure(**kernel, keys, absl::GetFlag(FLAGS_rounds)).dump() << std::endl;
  return 0;
}

}  // namespace attnd::bench
