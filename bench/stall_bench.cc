// How long small calls wait while another caller's call of very many tiny sequences is prepared and computed, in the
// engine alone, without a transport. Prints a line of JSON: times of the small calls in milliseconds, alone and beside
// the large calls, the longest time that submitting a large call held its thread, the time of the large calls, and the
// increase of peak memory.
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "heap/heap.h"
#include "kernel/registry.h"
#include "server/attention/engine.h"

ABSL_FLAG(std::string, large, "40000000,1,1,1", "batch,queries,keys,head_dim of the large call (one head)");
ABSL_FLAG(bool, lengths, false, "give the large call key_lengths, which tell its sequences apart");
ABSL_FLAG(int, large_calls, 1, "large calls, submitted one after another");
ABSL_FLAG(int, threads, 2, "threads of the engine");
ABSL_FLAG(double, seconds, 3, "how long small calls run alone, and at least beside the large ones");
ABSL_FLAG(bool, aside, false, "submit as the thread that all local callers share does");

namespace attnd::bench {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// A call without bias whose tensors are zeros. They share one read-only mapping that takes hardly any memory.
struct Call {
  explicit Call(const std::vector<std::int64_t>& sizes) {
    request.set_bias(v1::BIAS_NONE);
    request.set_mask(v1::MASK_CAUSAL);
    request.set_dtype(v1::DTYPE_FP32);
    request.set_batch(sizes[0]);
    request.set_heads(1);
    request.set_query_length(sizes[1]);
    request.set_key_length(sizes[2]);
    request.set_head_dim(sizes[3]);
    const auto bytes = [&](std::int64_t rows) { return static_cast<std::size_t>(sizes[0] * rows * sizes[3] * 4); };
    const std::size_t most = std::max(bytes(sizes[1]), bytes(sizes[2]));
    zeros = static_cast<const std::byte*>(mmap(nullptr, most, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    const auto tensor = [this](std::size_t size) { return server::TensorBytes{{{zeros, size}}, size}; };
    tensors = {tensor(bytes(sizes[1])), tensor(bytes(sizes[2])), tensor(bytes(sizes[2]))};
  }

  v1::ComputeAttentionRequest request;
  const std::byte* zeros;
  server::RequestTensors tensors;
};

nlohmann::ordered_json Summary(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&times](double part) {
    return times[static_cast<std::size_t>(part * static_cast<double>(times.size() - 1))];
  };
  return {{"calls", times.size()}, {"p50", at(0.5)}, {"p99", at(0.99)}, {"max", times.back()}};
}

double PeakRssMegabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Main(int argc, char** argv) {
  absl::SetProgramUsageMessage("times small calls beside a call of a great many sequences; prints a line of JSON");
  absl::ParseCommandLine(argc, argv);
  heap::Configure();
  std::vector<std::int64_t> sizes;
  for (const auto part : absl::StrSplit(absl::GetFlag(FLAGS_large), ',')) {
    std::int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 1) return std::cerr << "--large: expected four sizes\n", 2;
    sizes.push_back(size);
  }
  if (sizes.size() != 4) return std::cerr << "--large: expected four sizes\n", 2;

  server::Limits limits;
  limits.max_inflight_bytes = std::int64_t{1} << 40;
  model::Registry registry{model::RegistryOptions{}};
  server::AttentionEngine engine(limits, registry, *kernel::AvailableKernels().front(), absl::GetFlag(FLAGS_threads));

  Call small({1, 256, 256, 64});  // large enough not to run at once on this thread
  const auto time_small = [&] {
    const Clock::time_point start = Clock::now();
    absl::Notification finished;
    engine.Compute(small.request, small.tensors, {}, [&](const auto&) { finished.Notify(); });
    finished.WaitForNotification();
    return MillisecondsSince(start);
  };
  const double seconds = absl::GetFlag(FLAGS_seconds);
  std::vector<double> alone, beside;
  for (const Clock::time_point start = Clock::now(); MillisecondsSince(start) < seconds * 1e3;) {
    alone.push_back(time_small());
  }

  Call large(sizes);
  if (absl::GetFlag(FLAGS_lengths)) {
    for (std::int64_t i = 0; i < sizes[0]; ++i) large.request.add_key_lengths(i % (sizes[2] + 1));
  }
  const int calls = absl::GetFlag(FLAGS_large_calls);
  std::atomic<int> finished = 0;
  std::atomic<bool> failed = false;
  double submit_ms = 0;
  const double rss = PeakRssMegabytes();
  const Clock::time_point start = Clock::now();
  std::thread submitter([&] {
    for (int i = 0; i < calls; ++i) {
      const Clock::time_point begin = Clock::now();
      const auto done = [&](const absl::StatusOr<server::AttentionResult>& result) {
        if (!result.ok()) std::cerr << result.status() << "\n", failed = true;
        ++finished;
      };
      if (absl::GetFlag(FLAGS_aside)) {
        engine.ComputeAside(large.request, large.tensors, {}, done);
      } else {
        engine.Compute(large.request, large.tensors, {}, done);
      }
      submit_ms = std::max(submit_ms, MillisecondsSince(begin));
    }
  });
  while (finished < calls || MillisecondsSince(start) < seconds * 1e3) {
    beside.push_back(time_small());
    if (finished == calls) break;
  }
  const double took = MillisecondsSince(start);
  submitter.join();
  std::cout << nlohmann::ordered_json{{"alone", Summary(alone)},
                                      {"beside", Summary(beside)},
                                      {"submit_ms", submit_ms},
                                      {"large_ms", took},
                                      {"peak_rss_mb", PeakRssMegabytes() - rss}}
                   .dump()
            << std::endl;
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) { return attnd::bench::Main(argc, argv); }
