#include "problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "kernel/reference.h"
#include "platform/platform.h"
#include "schedule/attention_work.h"
#include "schedule/scheduler.h"
#include "tensor/half.h"

namespace attnd::kernel {

#if ATTND_X86_64
namespace isa_x86_64_v4_amx_emulated {
extern const Kernel kKernel;
}
#endif

namespace {

using tensor::DType;

void Append(std::vector<std::byte>& bytes, const void* data, std::size_t size) {
  const auto* from = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), from, from + size);
}

std::vector<std::byte> Encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes;
  bytes.reserve(values.size() * tensor::SizeOf(dtype));
  for (const float value : values) {
    if (dtype == DType::kF32) {
      Append(bytes, &value, 4);
    } else {
      const std::uint16_t bits = dtype == DType::kF16 ? tensor::HalfFromFloat(value) : tensor::BFloat16FromFloat(value);
      Append(bytes, &bits, 2);
    }
  }
  return bytes;
}

// Unit roundoff of what a dtype stores.
double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
  }
  return 0;
}

}  // namespace

std::string ProblemSpec::Name() const {
  return absl::StrCat("B", batch, " H", heads, "/", kv_heads, " Q", queries, " K", keys, " D", head_dim, " Dv",
                      value_head_dim, " ", tensor::NameOf(dtype), "->", tensor::NameOf(out_dtype), " layout ",
                      rows_before_heads, " segments ", segment_bytes, " misaligned ", misalignment, " mask ",
                      static_cast<int>(mask), " offset ", query_offset, " bias ", static_cast<int>(bias), " span ",
                      bias_span, " lengths ", !query_lengths.empty(), !key_lengths.empty(), " offsets ",
                      !query_offsets.empty(), " starts ", !key_starts.empty(), " bits ", !key_bits.empty(), " window ",
                      left == kAnyDistance ? -1 : left, "/", right == kAnyDistance ? -1 : right, " prefix ",
                      absl::StrJoin(prefix_lengths, ","), " key bias ", key_bias, " seed ", seed);
}

SegmentedTensor::SegmentedTensor(const std::vector<float>& elements, DType dtype, std::int64_t segment_bytes,
                                 std::int64_t misalignment)
    : dtype_(dtype) {
  const std::vector<std::byte> bytes = Encode(elements, dtype);
  const std::size_t step =
      segment_bytes == 0 ? std::max<std::size_t>(bytes.size(), 1) : static_cast<std::size_t>(segment_bytes);
  const auto shift = static_cast<std::size_t>(misalignment);
  for (std::size_t at = 0; at < bytes.size();) {
    // Pieces differ in size, so their borders fall anywhere in rows and elements.
    const std::size_t size = std::min(bytes.size() - at, step + pieces_.size() % 3);
    std::vector<std::byte> piece(shift + size);
    std::memcpy(piece.data() + shift, bytes.data() + at, size);
    pieces_.push_back(std::move(piece));
    at += size;
  }
  std::size_t begin = 0;
  for (const std::vector<std::byte>& piece : pieces_) {
    segments_.push_back({piece.data() + shift, piece.size() - shift, begin});
    begin += piece.size() - shift;
  }
}

TensorView SegmentedTensor::View(std::int64_t batch_stride, std::int64_t head_stride, std::int64_t row_stride) const {
  return {segments_.data(), static_cast<std::int64_t>(segments_.size()), dtype_, batch_stride, head_stride, row_stride};
}

Problem::Problem(const ProblemSpec& spec) : spec_(spec) {
  std::mt19937 random(spec.seed);
  std::normal_distribution<float> normal(0, spec.input_size);
  const auto fill = [&](std::vector<float>& values, std::int64_t count) {
    values.resize(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
  };
  fill(q, spec.batch * spec.heads * spec.queries * spec.head_dim);
  fill(k, spec.batch * spec.kv_heads * spec.keys * spec.head_dim);
  fill(v, spec.batch * spec.kv_heads * spec.keys * spec.value_head_dim);
  MakeBias(random);
  PackKeyBits();
  if (spec.key_bias) {
    std::normal_distribution<float> of_keys(0, spec.bias_size);
    key_bias_.resize(static_cast<std::size_t>(spec.heads * spec.keys));
    for (float& value : key_bias_) value = of_keys(random);
  }
  Rebuild();
}

// The bits that the last byte of a batch entry leaves over are ones: nothing may depend on them.
void Problem::PackKeyBits() {
  if (spec_.key_bits.empty()) return;
  const std::int64_t bytes = (spec_.keys + 7) / 8;
  key_bits_.assign(static_cast<std::size_t>(spec_.batch * bytes), std::byte{0xff});
  for (std::int64_t b = 0; b < spec_.batch; ++b) {
    for (std::int64_t j = 0; j < spec_.keys; ++j) {
      if (spec_.key_bits[static_cast<std::size_t>(b * spec_.keys + j)]) continue;
      key_bits_[static_cast<std::size_t>(b * bytes + j / 8)] &= ~(std::byte{1} << (j % 8));
    }
  }
}

Problem::Strides Problem::StridesOf(std::int64_t heads, std::int64_t rows, std::int64_t dim) const {
  if (spec_.rows_before_heads) return {heads * rows * dim, dim, heads * dim};
  return {heads * rows * dim, rows * dim, dim};
}

SegmentedTensor Problem::Store(const std::vector<float>& values, std::int64_t heads, std::int64_t rows,
                               std::int64_t dim) const {
  const Strides strides = StridesOf(heads, rows, dim);
  std::vector<float> stored(values.size());
  std::size_t from = 0;
  for (std::int64_t b = 0; b < spec_.batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t d = 0; d < dim; ++d) {
          stored[static_cast<std::size_t>(b * strides.batch + h * strides.head + r * strides.row + d)] = values[from++];
        }
      }
    }
  }
  return SegmentedTensor(stored, spec_.dtype, spec_.segment_bytes, spec_.misalignment);
}

void Problem::MakeBias(std::mt19937& random) {
  if (spec_.bias == BiasKind::kNone) return;
  std::normal_distribution<float> normal(0, spec_.bias_size);
  const bool both = spec_.bias != BiasKind::kCausal;
  bias_view_.max_offset = spec_.bias_span;
  bias_view_.min_offset = both ? -spec_.bias_span : 0;
  if (spec_.bias == BiasKind::kSlopes) bias_view_.min_offset = bias_view_.max_offset = 0;
  const std::int64_t count = bias_view_.max_offset - bias_view_.min_offset + 1;
  for (std::int64_t h = 0; h < spec_.heads; ++h) {
    for (std::int64_t i = 0; i < count; ++i) bias_values_.push_back(i == 0 ? 0 : normal(random));
    low_value_.push_back(bias_values_.back());
    constant_.push_back(normal(random));
    const bool sloped = spec_.bias == BiasKind::kSlopes;
    high_slope_.push_back(sloped ? 0.01f * static_cast<float>(h + 1) : 0);
    low_slope_.push_back(sloped ? 0.02f * static_cast<float>(h + 1) : 0);
  }
  bias_view_.values = bias_values_.data();
  bias_view_.head_stride = count;
  bias_view_.constant = constant_.data();
  bias_view_.low_value = low_value_.data();
  if (spec_.bias == BiasKind::kSlopes) {
    bias_view_.high_slope = high_slope_.data();
    bias_view_.low_slope = low_slope_.data();
  }
}

void Problem::Rebuild() {
  const ProblemSpec& s = spec_;
  stored_q_ = Store(q, s.heads, s.queries, s.head_dim);
  stored_k_ = Store(k, s.kv_heads, s.keys, s.head_dim);
  stored_v_ = Store(v, s.kv_heads, s.keys, s.value_head_dim);
  const auto view = [&](const SegmentedTensor& stored, std::int64_t heads, std::int64_t rows, std::int64_t dim) {
    const Strides strides = StridesOf(heads, rows, dim);
    return stored.View(strides.batch, strides.head, strides.row);
  };
  const Strides out = StridesOf(s.heads, s.queries, s.value_head_dim);
  const std::int64_t rows = s.batch * s.heads * s.queries;
  output_.resize(static_cast<std::size_t>(s.misalignment) +
                 static_cast<std::size_t>(rows * s.value_head_dim) * tensor::SizeOf(s.out_dtype));
  log_sum_exp_.resize(static_cast<std::size_t>(rows));
  attention_ = {.batch = s.batch,
                .heads = s.heads,
                .kv_heads = s.kv_heads,
                .query_length = s.queries,
                .key_length = s.keys,
                .head_dim = s.head_dim,
                .value_head_dim = s.value_head_dim,
                .q = view(stored_q_, s.heads, s.queries, s.head_dim),
                .k = view(stored_k_, s.kv_heads, s.keys, s.head_dim),
                .v = view(stored_v_, s.kv_heads, s.keys, s.value_head_dim),
                .out = {output_.data() + s.misalignment, s.out_dtype, out.batch, out.head, out.row},
                .log_sum_exp = s.log_sum_exp ? log_sum_exp_.data() : nullptr,
                .mask = s.mask,
                .scale = s.scale,
                .query_offset = s.query_offset,
                .query_lengths = s.query_lengths.empty() ? nullptr : s.query_lengths.data(),
                .key_lengths = s.key_lengths.empty() ? nullptr : s.key_lengths.data(),
                .bias = s.bias == BiasKind::kNone ? nullptr : &bias_view_,
                .product_precision = s.precision,
                .query_offsets = s.query_offsets.empty() ? nullptr : s.query_offsets.data(),
                .key_starts = s.key_starts.empty() ? nullptr : s.key_starts.data(),
                .key_bits = key_bits_.empty() ? nullptr : key_bits_.data(),
                .left = s.left,
                .right = s.right,
                .prefix_lengths = s.prefix_lengths.empty() ? nullptr : s.prefix_lengths.data(),
                .key_bias = key_bias_.empty() ? nullptr : key_bias_.data()};
}

std::vector<float> Problem::Output() const {
  const OutputView& out = attention_.out;
  const Segment segment{out.data, output_.size() - static_cast<std::size_t>(spec_.misalignment)};
  const TensorView view{&segment, 1, out.dtype, out.batch_stride, out.head_stride, out.row_stride};
  std::vector<float> values;
  for (std::int64_t b = 0; b < spec_.batch; ++b) {
    for (std::int64_t h = 0; h < spec_.heads; ++h) {
      for (std::int64_t r = 0; r < spec_.queries; ++r) {
        for (std::int64_t d = 0; d < spec_.value_head_dim; ++d) {
          values.push_back(static_cast<float>(ElementAt(view, b, h, r, d)));
        }
      }
    }
  }
  return values;
}

void Problem::Spoil() {
  std::fill(output_.begin(), output_.end(), std::byte{0x7b});
  std::fill(log_sum_exp_.begin(), log_sum_exp_.end(), 1e30f);
}

const std::vector<const Kernel*>& TestedKernels() {
  static const auto* const kernels = [] {
    auto* all = new std::vector<const Kernel*>(AvailableKernels());
#if ATTND_X86_64
    if (ChooseKernel("x86-64-v4-bf16").ok()) all->push_back(&isa_x86_64_v4_amx_emulated::kKernel);
#endif
    return all;
  }();
  return *kernels;
}

void RunAttention(const Attention& attention, const Kernel& kernel, int threads) {
  auto work = schedule::MakeAttentionWork(attention, kernel);
  ASSERT_NE(work, nullptr);
  absl::Notification finished;
  schedule::Scheduler scheduler(threads);
  scheduler.Submit(std::move(work), {}, [&](const schedule::Outcome& outcome) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    finished.Notify();
  });
  ASSERT_TRUE(finished.WaitForNotificationWithTimeout(absl::Seconds(60))) << "the work does not end";
}

// Where fp32 rounding can lead: a logit is a sum of head_dim rounded products and a bias; a weight's relative error is
// twice the largest logit's absolute error (its own and the normalisation's) and some roundings; an output is a sum of
// as many products as keys. Sums of n roundings are taken to grow with sqrt(n), four standard deviations of them.
Expected Expect(const Problem& problem) {
  const Attention& a = problem.attention();
  const auto size = static_cast<std::size_t>(a.batch * a.heads * a.query_length);
  const auto dim = static_cast<std::size_t>(a.value_head_dim);
  Expected expected;
  expected.output.resize(size * dim);
  expected.log_sum_exp.resize(size);
  Reference(a, expected.output.data(), expected.log_sum_exp.data());

  // The same weights over absolute values.
  std::vector<float> magnitudes(problem.v.size());
  std::transform(problem.v.begin(), problem.v.end(), magnitudes.begin(), [](float x) { return std::abs(x); });
  ProblemSpec spec = problem.spec();
  Problem absolute(spec);
  absolute.q = problem.q;
  absolute.k = problem.k;
  absolute.v = magnitudes;
  absolute.Rebuild();
  Attention with_magnitudes = a;
  with_magnitudes.v = absolute.attention().v;
  expected.output_tolerance.resize(size * dim);
  Reference(with_magnitudes, expected.output_tolerance.data(), nullptr);

  const auto norm = [](const std::vector<float>& values, std::int64_t row, std::int64_t d) {
    double sum = 0;
    for (std::int64_t i = 0; i < d; ++i) {
      const double value = values[static_cast<std::size_t>(row * d + i)];
      if (std::isfinite(value)) sum += value * value;
    }
    return std::sqrt(sum);
  };
  double key_norm = 0;
  for (std::int64_t r = 0; r < a.batch * a.kv_heads * a.key_length; ++r) {
    key_norm = std::max(key_norm, norm(problem.k, r, a.head_dim));
  }
  double bias_norm = 0;
  if (a.bias != nullptr) {
    for (std::int64_t h = 0; h < a.heads; ++h) {
      for (std::int64_t b = 0; b < a.batch; ++b) {
        const std::int64_t first = a.query_offsets == nullptr ? a.query_offset : a.query_offsets[b];
        for (std::int64_t o = first - a.key_length; o <= first + a.query_length; ++o) {
          bias_norm = std::max(bias_norm, std::abs(BiasAt(*a.bias, h, o)));
        }
        if (a.query_offsets == nullptr) break;
      }
    }
  }
  if (a.key_bias != nullptr) {
    double largest = 0;
    for (std::int64_t i = 0; i < a.heads * a.key_length; ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(a.key_bias[i])));
    }
    bias_norm += largest;
  }
  const bool bf16_products = a.product_precision == ProductPrecision::kBF16 && a.q.dtype == DType::kBF16 &&
                             a.k.dtype == DType::kBF16 && a.v.dtype == DType::kBF16;
  const double u = 0x1p-24;
  const double sqrt_dim = std::sqrt(static_cast<double>(a.head_dim));
  const double sqrt_keys = std::sqrt(static_cast<double>(a.key_length));
  const double out_u = UnitRoundoff(a.out.dtype);
  for (std::size_t r = 0; r < size; ++r) {
    const double product = std::abs(a.scale) * norm(problem.q, static_cast<std::int64_t>(r), a.head_dim) * key_norm;
    const double logit = 4 * u * ((sqrt_dim + 4) * product + 3 * bias_norm);
    // Products of bf16 round the weights (not their sum) to bf16.
    const double weight = 2 * logit + 4 * u * (sqrt_keys + 8) + (bf16_products ? UnitRoundoff(DType::kBF16) : 0);
    expected.log_sum_exp_tolerance.push_back(logit + 8 * u * (sqrt_keys + std::abs(expected.log_sum_exp[r])));
    for (std::size_t d = 0; d < dim; ++d) {
      double& tolerance = expected.output_tolerance[r * dim + d];
      // Below a dtype's smallest normal number its spacing no longer shrinks.
      const double tiny = a.out.dtype == DType::kF16 ? 0x1p-25 : 1e-37;
      tolerance = weight * tolerance + out_u * std::abs(expected.output[r * dim + d]) + tiny;
    }
  }
  return expected;
}

namespace {

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected,
                const std::vector<double>& tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  std::size_t wrong = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    bool same = std::abs(actual[i] - expected[i]) <= tolerance[i];
    if (std::isnan(expected[i])) same = std::isnan(actual[i]);
    if (std::isinf(expected[i])) same = actual[i] == expected[i];
    if (!same && wrong++ == 0) first = i;
  }
  EXPECT_EQ(wrong, 0u) << what << " differ; first at " << first << ": " << actual[first] << ", expected "
                       << expected[first] << " +- " << tolerance[first];
}

}  // namespace

void ExpectKernelsAgree(Problem& problem, const Expected& expected, const Kernel* only, int threads) {
  for (const Kernel* kernel : TestedKernels()) {
    if (only != nullptr && kernel != only) continue;
    SCOPED_TRACE(absl::StrCat(std::string(NameOf(*kernel)), ": ", problem.spec().Name()));
    problem.Spoil();
    RunAttention(problem.attention(), *kernel, threads);
    ExpectNear(problem.Output(), expected.output, expected.output_tolerance, "outputs");
    if (problem.spec().log_sum_exp) {
      ExpectNear(problem.log_sum_exp(), expected.log_sum_exp, expected.log_sum_exp_tolerance, "log-sum-exps");
    }
  }
}

void ExpectKernelsAgree(const ProblemSpec& spec) {
  Problem problem(spec);
  ExpectKernelsAgree(problem, Expect(problem));
}

void ExpectSameBits(Problem& problem, Problem& expected) {
  for (const Kernel* kernel : TestedKernels()) {
    problem.Spoil();
    expected.Spoil();
    RunAttention(problem.attention(), *kernel);
    RunAttention(expected.attention(), *kernel);
    EXPECT_EQ(problem.output_bytes(), expected.output_bytes()) << NameOf(*kernel) << " " << problem.spec().Name();
    EXPECT_EQ(problem.log_sum_exp(), expected.log_sum_exp()) << NameOf(*kernel) << " " << problem.spec().Name();
  }
}

void ExpectBitsDoNotDependOnThreads(Problem& problem) {
  for (const Kernel* kernel : TestedKernels()) {
    problem.Spoil();
    RunAttention(problem.attention(), *kernel, 1);
    const std::vector<std::byte> alone = problem.output_bytes();
    problem.Spoil();
    RunAttention(problem.attention(), *kernel, 3);
    EXPECT_EQ(problem.output_bytes(), alone) << NameOf(*kernel) << " " << problem.spec().Name();
  }
}

std::vector<ProblemSpec> EveryWay() {
  std::vector<ProblemSpec> specs;
  for (const Mask mask : {Mask::kCausal, Mask::kNone}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const ProblemSpec base{.batch = 2,
                             .head_dim = 32,
                             .value_head_dim = 48,
                             .dtype = dtype,
                             .mask = mask,
                             .bias = mask == Mask::kCausal ? BiasKind::kCausal : BiasKind::kBidirectional,
                             .precision = ProductPrecision::kBF16};
      const auto add = [&](std::int64_t heads, std::int64_t kv_heads, std::int64_t queries, std::int64_t keys) {
        ProblemSpec spec = base;
        spec.heads = heads;
        spec.kv_heads = kv_heads;
        spec.queries = queries;
        spec.keys = keys;
        spec.query_offset = keys - queries;
        specs.push_back(spec);
      };
      add(4, 2, 1, 300);
      add(1, 1, 1, 3000);
      add(1, 1, 3, 3000);
      add(2, 2, 33, 33);
      add(1, 1, 40, 2500);
      add(2, 1, 400, 400);
    }
  }
  return specs;
}

}  // namespace attnd::kernel
