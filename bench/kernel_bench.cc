#include "kernel_bench.h"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "bias/bias_table.h"
#include "heap/heap.h"
#include "kernel/kernel.h"
#include "kernel/registry.h"
#include "machine_peak.h"
#include "memory/huge_pages.h"
#include "pages.h"
#include "schedule/arena.h"
#include "schedule/attention_work.h"
#include "schedule/scheduler.h"
#include "tensor/half.h"

ABSL_FLAG(std::string, shape, "1,8,2048,64", "batch,heads,keys,head_dim");
ABSL_FLAG(std::int64_t, kv_heads, 0, "key heads; 0: as many as heads");
ABSL_FLAG(std::int64_t, queries, 0, "query rows, the last ones; 0: as many as keys");
ABSL_FLAG(std::string, dtype, "fp32", "fp32, fp16 or bf16; bf16 is multiplied as bf16 where the kernel can");
ABSL_FLAG(int, threads, 1, "threads");
ABSL_FLAG(std::string, kernel, "", "kernel to force; empty: the environment's ATTND_KERNEL, else the best");
ABSL_FLAG(std::string, bias, "t5", "t5 (32 buckets, maximum distance 128) or none");
ABSL_FLAG(std::string, mask, "causal", "causal or none");
ABSL_FLAG(
    std::string, true_keys, "all",
    "all; start: from a quarter of the keys on, by key_starts; bits: the same keys by key_bits; or holes: all but "
    "every fourth, by key_bits");
ABSL_FLAG(std::int64_t, window_left, -1, "the most that a key may stand before a query; -1: any distance");
ABSL_FLAG(std::int64_t, prefix, 0, "keys that a causal mask hides from no query");
ABSL_FLAG(bool, key_bias, false, "a bias of each key, too");
ABSL_FLAG(std::int64_t, beams, 1, "batch entries that share each source's keys and values; divides the batch");
ABSL_FLAG(std::int64_t, page_rows, 0,
          "rows of a page, where keys and values lie in pages in random order; divides the keys; 0: in one piece");
ABSL_FLAG(int, reps, 20, "timed repetitions");
ABSL_FLAG(bool, turns, false,
          "read lengths of turns, in seconds, from standard input, and print a line of JSON with the times of each");
ABSL_FLAG(std::string, pages, "huge", "pages that the tensors lie on: huge (where the system gives them) or small");

namespace attnd::bench {
namespace {

using kernel::Attention;

struct Setup {
  std::int64_t batch, heads, kv_heads, queries, keys, dim;
  tensor::DType dtype;
  bool bias, causal;
  int threads, reps;
  PageKind pages;
  const kernel::Kernel* kernel;
  std::string true_keys;
  std::int64_t window_left, prefix;
  bool key_bias;
  std::int64_t beams, page_rows;
};

absl::StatusOr<Setup> ReadFlags() {
  Setup setup{};
  const std::string shape = absl::GetFlag(FLAGS_shape);
  const std::vector<std::string> parts = absl::StrSplit(shape, ',');
  std::int64_t* const sizes[] = {&setup.batch, &setup.heads, &setup.keys, &setup.dim};
  bool valid = parts.size() == 4;
  for (std::size_t i = 0; valid && i < 4; ++i) valid = absl::SimpleAtoi(parts[i], sizes[i]) && *sizes[i] > 0;
  if (!valid) return absl::InvalidArgumentError("--shape: expected batch,heads,keys,head_dim, got " + shape);
  setup.kv_heads = absl::GetFlag(FLAGS_kv_heads) == 0 ? setup.heads : absl::GetFlag(FLAGS_kv_heads);
  if (setup.kv_heads < 1 || setup.heads % setup.kv_heads != 0) {
    return absl::InvalidArgumentError("--kv_heads: expected a divisor of the heads");
  }
  setup.queries = absl::GetFlag(FLAGS_queries) == 0 ? setup.keys : absl::GetFlag(FLAGS_queries);
  const std::string dtype = absl::GetFlag(FLAGS_dtype);
  if (dtype != "fp32" && dtype != "fp16" && dtype != "bf16") {
    return absl::InvalidArgumentError("--dtype: expected fp32, fp16 or bf16, got " + dtype);
  }
  setup.dtype = dtype == "fp32" ? tensor::DType::kF32 : dtype == "fp16" ? tensor::DType::kF16 : tensor::DType::kBF16;
  const std::string bias = absl::GetFlag(FLAGS_bias);
  if (bias != "t5" && bias != "none") return absl::InvalidArgumentError("--bias: expected t5 or none, got " + bias);
  setup.bias = bias == "t5";
  const std::string mask = absl::GetFlag(FLAGS_mask);
  if (mask != "causal" && mask != "none") {
    return absl::InvalidArgumentError("--mask: expected causal or none, got " + mask);
  }
  setup.causal = mask == "causal";
  setup.true_keys = absl::GetFlag(FLAGS_true_keys);
  if (setup.true_keys != "all" && setup.true_keys != "start" && setup.true_keys != "bits" &&
      setup.true_keys != "holes") {
    return absl::InvalidArgumentError("--true_keys: expected all, start, bits or holes, got " + setup.true_keys);
  }
  const std::int64_t window_left = absl::GetFlag(FLAGS_window_left);
  setup.window_left = window_left < 0 ? kernel::kAnyDistance : window_left;
  setup.prefix = absl::GetFlag(FLAGS_prefix);
  if (setup.prefix < 0 || setup.prefix > setup.keys || (setup.prefix > 0 && !setup.causal)) {
    return absl::InvalidArgumentError("--prefix: expected 0 to the number of keys, with a causal mask");
  }
  setup.key_bias = absl::GetFlag(FLAGS_key_bias);
  setup.beams = absl::GetFlag(FLAGS_beams);
  if (setup.beams < 1 || setup.batch % setup.beams != 0) {
    return absl::InvalidArgumentError("--beams: expected a divisor of the batch");
  }
  setup.page_rows = absl::GetFlag(FLAGS_page_rows);
  if (setup.page_rows < 0 || (setup.page_rows > 0 && setup.keys % setup.page_rows != 0)) {
    return absl::InvalidArgumentError("--page_rows: expected 0 or a divisor of the keys");
  }
  setup.threads = absl::GetFlag(FLAGS_threads);
  setup.reps = absl::GetFlag(FLAGS_reps);
  if (setup.queries < 1 || setup.threads < 1 || setup.reps < 1) {
    return absl::InvalidArgumentError("--queries, --threads, --reps: expected at least 1");
  }
  const absl::StatusOr<PageKind> pages = ParsePageKind(absl::GetFlag(FLAGS_pages));
  if (!pages.ok()) return pages.status();
  setup.pages = *pages;
  const absl::StatusOr<const kernel::Kernel*> chosen = kernel::ChooseKernel(absl::GetFlag(FLAGS_kernel));
  if (!chosen.ok()) return chosen.status();
  setup.kernel = *chosen;
  return setup;
}

// A tensor of random numbers in one segment.
struct Input {
  Input(std::int64_t elements, tensor::DType dtype, PageKind pages, std::uint32_t seed)
      : bytes(static_cast<std::size_t>(elements) * tensor::SizeOf(dtype), pages), segment{bytes.data(), bytes.size()} {
    Fill(dtype, seed);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  void Fill(tensor::DType dtype, std::uint32_t seed) {
    const std::size_t size = tensor::SizeOf(dtype);
    std::minstd_rand random(seed);
    for (std::size_t at = 0; at < bytes.size(); at += size) {
      const float value = static_cast<float>(random()) / static_cast<float>(std::minstd_rand::max()) - 0.5f;
      const std::uint16_t half =
          dtype == tensor::DType::kF16 ? tensor::HalfFromFloat(value) : tensor::BFloat16FromFloat(value);
      if (dtype == tensor::DType::kF32) {
        std::memcpy(bytes.data() + at, &value, size);
      } else {
        std::memcpy(bytes.data() + at, &half, size);
      }
    }
  }

  PageBuffer bytes;
  kernel::Segment segment;
};

absl::StatusOr<bias::BiasTable> MakeBias(std::int64_t heads) {
  bias::T5Rule rule{.num_buckets = 32,
                    .max_distance = 128,
                    .bidirectional = !absl::GetFlag(FLAGS_mask).starts_with("c"),
                    .values = {}};
  std::minstd_rand random(7);
  for (std::int64_t i = 0; i < rule.num_buckets * heads; ++i) {
    rule.values.push_back(static_cast<float>(random() % 1000) / 250.0f - 2);
  }
  return bias::BiasTable::Create(heads, rule);
}

// With one thread, runs the work items itself; with more, uses the scheduler.
class Runner {
 public:
  explicit Runner(int threads) {
    if (threads > 1) scheduler_.emplace(threads);
  }

  double Milliseconds(const Attention& attention, const kernel::Kernel& kernel) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_ptr<schedule::Work> work = schedule::MakeAttentionWork(attention, kernel);
    if (scheduler_) {
      absl::Notification finished;
      scheduler_->Submit(std::move(work), {}, [&finished](const schedule::Outcome&) { finished.Notify(); });
      finished.WaitForNotification();
    } else {
      while (const std::optional<schedule::Item> item = work->Next()) {
        work->Run(*item, arena_, [] { return true; });
        work->Finish(*item);
      }
    }
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  std::optional<schedule::Scheduler> scheduler_;
  schedule::Arena arena_;
};

double PeakRssMegabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Floating point operations for the visible (query, key) pairs.
double Flops(const Setup& s) {
  const bool from_a_quarter = s.true_keys == "start" || s.true_keys == "bits";
  const std::int64_t first = from_a_quarter ? s.keys / 4 : 0;
  double pairs = 0;
  for (std::int64_t i = 0; i < s.queries; ++i) {
    const std::int64_t position = s.keys - s.queries + i;
    const std::int64_t end = s.causal ? std::min(s.keys, std::max(s.prefix, position + 1)) : s.keys;
    const std::int64_t seen = std::max<std::int64_t>(0, end - std::max(first, position - s.window_left));
    pairs += static_cast<double>(s.true_keys == "holes" ? seen - seen / 4 : seen);
  }
  return pairs * 4 * static_cast<double>(s.dim * s.batch * s.heads);
}

// One attention problem with its tensors and bias.
class Problem {
 public:
  static absl::StatusOr<std::unique_ptr<Problem>> Create(const Setup& setup) {
    absl::StatusOr<bias::BiasTable> table = MakeBias(setup.heads);
    if (!table.ok()) return table.status();
    return std::unique_ptr<Problem>(new Problem(setup, *std::move(table)));
  }

  const Attention& attention() const { return attention_; }
  double input_bytes() const { return static_cast<double>(q_.bytes.size() + k_.bytes.size() + v_.bytes.size()); }
  double huge_fraction() const {
    return std::min(memory::HugeFraction(k_.bytes.data(), k_.bytes.size()),
                    memory::HugeFraction(v_.bytes.data(), v_.bytes.size()));
  }

 private:
  Problem(const Setup& s, bias::BiasTable table)
      : q_(s.batch * s.heads * s.queries * s.dim, s.dtype, s.pages, 1),
        k_(s.batch / s.beams * s.kv_heads * s.keys * s.dim, s.dtype, s.pages, 2),
        v_(s.batch / s.beams * s.kv_heads * s.keys * s.dim, s.dtype, s.pages, 3),
        out_(q_.bytes.size(), s.pages),
        table_(std::move(table)) {
    const bias::OffsetForm& form = table_.offset_form();
    bias_ = {form.values.data(),     form.max_offset - form.min_offset + 1,
             form.min_offset,        form.max_offset,
             form.constant.data(),   form.low_value.data(),
             form.high_slope.data(), form.low_slope.data()};
    const auto view = [&s](const Input& input, std::int64_t heads, std::int64_t rows) {
      return kernel::TensorView{&input.segment, 1, s.dtype, heads * rows * s.dim, rows * s.dim, s.dim};
    };
    attention_.batch = s.batch;
    attention_.heads = s.heads;
    attention_.kv_heads = s.kv_heads;
    attention_.query_length = s.queries;
    attention_.key_length = s.keys;
    attention_.head_dim = attention_.value_head_dim = s.dim;
    attention_.q = view(q_, s.heads, s.queries);
    attention_.k = view(k_, s.kv_heads, s.keys);
    attention_.v = view(v_, s.kv_heads, s.keys);
    if (s.beams > 1) ShareSources(s);
    if (s.page_rows > 0) PutInPages(s);
    attention_.out = {out_.data(), s.dtype, s.heads * s.queries * s.dim, s.queries * s.dim, s.dim};
    attention_.mask = s.causal ? kernel::Mask::kCausal : kernel::Mask::kNone;
    attention_.scale = 1;
    attention_.query_offset = s.keys - s.queries;
    attention_.bias = s.bias ? &bias_ : nullptr;
    attention_.product_precision = kernel::ProductPrecision::kBF16;
    attention_.left = s.window_left;
    if (s.prefix > 0) {
      prefix_lengths_.assign(static_cast<std::size_t>(s.batch), s.prefix);
      attention_.prefix_lengths = prefix_lengths_.data();
    }
    if (s.key_bias) {
      key_bias_.assign(static_cast<std::size_t>(s.heads * s.keys), 0.25F);
      attention_.key_bias = key_bias_.data();
    }
    if (s.true_keys == "start") {
      key_starts_.assign(static_cast<std::size_t>(s.batch), s.keys / 4);
      attention_.key_starts = key_starts_.data();
    } else if (s.true_keys != "all") {
      HideKeys(s);
      attention_.key_bits = key_bits_.data();
    }
  }

  void ShareSources(const Setup& s) {
    for (std::int64_t b = 0; b < s.batch; ++b) starts_.push_back(b / s.beams * attention_.k.batch_stride);
    attention_.k.starts = attention_.v.starts = starts_.data();
  }

  // The numbers are random, so it does not matter which row is on which page.
  void PutInPages(const Setup& s) {
    const std::int64_t pages = s.keys / s.page_rows;
    const std::int64_t all = s.batch / s.beams * pages;
    std::vector<std::int64_t> order(static_cast<std::size_t>(all));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::minstd_rand(4));
    const auto place = [&](kernel::TensorView& view, const Input& input, PageLists& lists) {
      const std::int64_t elements = s.kv_heads * s.page_rows * s.dim;
      for (const std::int64_t at : order) {
        lists.pages.push_back(input.bytes.data() + static_cast<std::size_t>(at * elements) * tensor::SizeOf(s.dtype));
      }
      for (std::int64_t b = 0; b < s.batch; ++b) {
        lists.of_entries.push_back(&lists.pages[static_cast<std::size_t>(b / s.beams * pages)]);
      }
      view = {};
      view.dtype = s.dtype;
      view.head_stride = s.page_rows * s.dim;
      view.row_stride = s.dim;
      view.pages = lists.of_entries.data();
      view.page_rows = s.page_rows;
    };
    place(attention_.k, k_, key_pages_);
    place(attention_.v, v_, value_pages_);
  }

  void HideKeys(const Setup& s) {
    const std::int64_t bytes = (s.keys + 7) / 8;
    key_bits_.assign(static_cast<std::size_t>(s.batch * bytes), std::byte{0xff});
    for (std::int64_t b = 0; b < s.batch; ++b) {
      for (std::int64_t key = 0; key < s.keys; ++key) {
        const bool hidden = s.true_keys == "bits" ? key < s.keys / 4 : key % 4 == 3;
        if (hidden) key_bits_[static_cast<std::size_t>(b * bytes + key / 8)] &= ~(std::byte{1} << (key % 8));
      }
    }
  }

  const Input q_, k_, v_;
  PageBuffer out_;
  const bias::BiasTable table_;
  kernel::BiasView bias_{};
  struct PageLists {
    std::vector<const std::byte*> pages;
    std::vector<const std::byte* const*> of_entries;
  };
  PageLists key_pages_, value_pages_;
  std::vector<std::int64_t> key_starts_, prefix_lengths_, starts_;
  std::vector<float> key_bias_;
  std::vector<std::byte> key_bits_;
  Attention attention_{};
};

// Runs the problem repeatedly for `seconds`.
nlohmann::ordered_json TakeTurn(const Setup& s, const Problem& problem, Runner& runner, double seconds) {
  const auto cpu_milliseconds = [] {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
  };
  std::vector<double> times;
  double elapsed = 0;
  const double cpu = cpu_milliseconds();
  do {
    times.push_back(runner.Milliseconds(problem.attention(), *s.kernel));
    elapsed += times.back();
  } while (elapsed < seconds * 1e3);
  return {{"ms", times}, {"cpu_ms", cpu_milliseconds() - cpu}};
}

nlohmann::ordered_json Measure(const Setup& s, const Problem& problem) {
  Runner runner(s.threads);
  runner.Milliseconds(problem.attention(), *s.kernel);
  const double rss = PeakRssMegabytes();  // before MachinePeak allocates the memory that it reads

  MachinePeak peak(*s.kernel, s.threads, s.pages);
  std::vector<double> times;
  for (int rep = 0; rep < s.reps; ++rep) {
    // Interleaved, so that a slow phase of the machine affects all three.
    if (rep % std::max(1, s.reps / 20) == 0) peak.MeasureArithmetic();
    if (rep % std::max(1, s.reps / 5) == 0) peak.MeasureReading();
    times.push_back(runner.Milliseconds(problem.attention(), *s.kernel));
  }
  std::sort(times.begin(), times.end());
  const double gflops = Flops(s) / times.front() / 1e6;
  return nlohmann::ordered_json{{"kernel", std::string(kernel::NameOf(*s.kernel))},
                                {"ms_min", times.front()},
                                {"ms_median", times[times.size() / 2]},
                                {"gflops", gflops},
                                {"peak_gflops", peak.gflops()},
                                {"fraction_of_peak", gflops / peak.gflops()},
                                {"input_gigabytes_per_second", problem.input_bytes() / times.front() / 1e6},
                                {"read_bandwidth", peak.best_gigabytes_per_second()},
                                {"read_bandwidth_median", peak.median_gigabytes_per_second()},
                                {"pages", absl::GetFlag(FLAGS_pages)},
                                {"huge_fraction", problem.huge_fraction()},
                                {"peak_rss_mb", rss}};
}

}  // namespace

int KernelMain(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "times one attention problem and prints a line of JSON. Times in milliseconds; gflops counts the visible (query, "
      "key) pairs; peak_gflops (multiply-adds of the kernel's instruction set) and read_bandwidth (gigabytes per "
      "second, the best and the median) are measured between the repetitions; peak_rss_mb includes the inputs; "
      "huge_fraction is how much of k and v lies on huge pages.");
  absl::ParseCommandLine(argc, argv);
  heap::Configure();  // as in attnd: it holds the packed keys and values
  const absl::StatusOr<Setup> setup = ReadFlags();
  if (!setup.ok()) {
    std::cerr << "attnd_bench kernel: " << setup.status().message() << "\n";
    return 2;
  }
  const absl::StatusOr<std::unique_ptr<Problem>> problem = Problem::Create(*setup);
  if (!problem.ok()) {
    std::cerr << "attnd_bench kernel: " << problem.status().message() << "\n";
    return 1;
  }
  if (absl::GetFlag(FLAGS_turns)) {
    Runner runner(setup->threads);
    runner.Milliseconds((*problem)->attention(), *setup->kernel);
    for (double seconds = 0; std::cin >> seconds;) {
      std::cout << TakeTurn(*setup, **problem, runner, seconds).dump() << std::endl;
    }
    return 0;
  }
  std::cout << Measure(*setup, **problem).dump() << std::endl;
  return 0;
}

}  // namespace attnd::bench
