// The features of a request together, from decoded message to result, against the formula of attention.proto in double
// precision: at random, with few keys, and with enough for a row's keys to be computed in several partial results.
// Results go into memory that holds other bytes before.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/notification.h"
#include "attention/calls.h"
#include "attention/held_kernel.h"
#include "attention/test_region.h"
#include "gtest/gtest.h"
#include "kernel/reference.h"
#include "kernel/registry.h"
#include "server/attention/bias.h"
#include "server/attention/dtype.h"
#include "server/attention/engine.h"
#include "server/attention/numbers.h"
#include "tensor/convert.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::size_t SizeOf(v1::Dtype dtype) { return tensor::SizeOf(*EngineDtype(dtype)); }

std::vector<float> ToFloats(v1::Dtype dtype, std::string_view bytes) {
  std::vector<float> floats(bytes.size() / SizeOf(dtype));
  tensor::ConvertToFloat(*EngineDtype(dtype), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
                         absl::MakeSpan(floats));
  return floats;
}

// Random values of a dtype.
std::string RandomBytes(v1::Dtype dtype, std::int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> floats(static_cast<std::size_t>(count));
  for (float& value : floats) value = normal(random);
  std::string bytes(floats.size() * SizeOf(dtype), '\0');
  tensor::ConvertFromFloat(*EngineDtype(dtype), floats, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
  return bytes;
}

// The index of an element of a tensor [batch, heads, rows, dim] in a layout.
std::size_t IndexOf(v1::Layout layout, std::int64_t heads, std::int64_t rows, std::int64_t dim, std::int64_t b,
                    std::int64_t h, std::int64_t r, std::int64_t d) {
  const bool sequence_first = layout == v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM;
  return static_cast<std::size_t>((sequence_first ? (b * rows + r) * heads + h : (b * heads + h) * rows + r) * dim + d);
}

// A request with random features, and its tensors.
struct Call {
  Request request;
  std::string q, k, v;

  std::int64_t kv_heads() const { return request.kv_heads() == 0 ? request.heads() : request.kv_heads(); }
  std::int64_t kv_batch() const { return request.kv_batch() == 0 ? request.batch() : request.kv_batch(); }
  std::int64_t value_dim() const {
    return request.value_head_dim() == 0 ? request.head_dim() : request.value_head_dim();
  }
  std::int64_t rows() const { return request.batch() * request.heads() * request.query_length(); }
  v1::Dtype output_dtype() const {
    return request.output_dtype() == v1::DTYPE_UNSPECIFIED ? request.dtype() : request.output_dtype();
  }
  std::size_t output_bytes() const { return static_cast<std::size_t>(rows() * value_dim()) * SizeOf(output_dtype()); }
  std::size_t log_sum_exp_bytes() const {
    return request.return_log_sum_exp() ? static_cast<std::size_t>(rows()) * sizeof(float) : 0;
  }
};

class RandomCall {
 public:
  explicit RandomCall(unsigned seed) : random_(seed) {}

  Call Make() {
    Call call;
    Request& r = call.request;
    SetSizes(r);
    if (Chance(4)) {
      SetSegments(r);
    } else {
      SetLists(r);
    }
    r.set_layout(Of({v1::LAYOUT_UNSPECIFIED, v1::LAYOUT_BATCH_HEAD_SEQUENCE_DIM, v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM}));
    r.set_dtype(Of({v1::DTYPE_FP32, v1::DTYPE_FP16, v1::DTYPE_BF16}));
    r.set_output_dtype(Of({v1::DTYPE_UNSPECIFIED, v1::DTYPE_FP32, v1::DTYPE_FP16, v1::DTYPE_BF16}));
    r.set_product_precision(v1::PRODUCT_PRECISION_FP32);
    r.set_return_log_sum_exp(Chance(2));
    r.set_scale(0.3F);
    if (Chance(3)) r.set_window_left(Below(2 * r.key_length()));
    if (Chance(3)) r.set_window_right(Below(r.key_length()));
    call.q = RandomBytes(r.dtype(), call.rows() * r.head_dim(), random_);
    const std::int64_t keys = call.kv_batch() * call.kv_heads() * r.key_length();
    call.k = RandomBytes(r.dtype(), keys * r.head_dim(), random_);
    call.v = RandomBytes(r.dtype(), keys * call.value_dim(), random_);
    return call;
  }

  std::int64_t Below(std::int64_t bound) { return static_cast<std::int64_t>(random_() % static_cast<unsigned>(bound)); }
  bool Chance(std::int64_t one_in) { return Below(one_in) == 0; }

 private:
  template <typename T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Below(static_cast<std::int64_t>(values.size()))];
  }

  void SetSizes(Request& r) {
    r.set_batch(1 + Below(3));
    // Few queries of thousands of keys, many queries, and tiny ones.
    const std::int64_t kind = Below(3);
    r.set_query_length(kind == 0 ? 1 + Below(3) : kind == 1 ? 60 + Below(90) : 1 + Below(6));
    r.set_key_length(kind == 0 ? 2000 + Below(3000) : kind == 1 ? 100 + Below(200) : 1 + Below(12));
    r.set_head_dim(Of<std::int64_t>({4, 5, 16}));
    if (Chance(2)) r.set_value_head_dim(Of<std::int64_t>({3, 8, 12}));
    if (Chance(3)) {
      r.set_bias(v1::BIAS_NONE);
      r.set_heads(4);
      r.set_kv_heads(Of<std::int64_t>({0, 1, 2, 4}));
    } else {
      r.set_model(kModel);
      r.set_heads(kHeads);
      if (Chance(2)) r.set_table("encoder");
      if (Chance(3)) {
        r.set_heads(1);
        r.set_first_head(Below(kHeads));
      } else {
        r.set_kv_heads(Of<std::int64_t>({0, 1, 2}));
      }
    }
    r.set_mask(Of({v1::MASK_UNSPECIFIED, v1::MASK_CAUSAL, v1::MASK_NONE}));
  }

  // Starts of sequences in rows of `length`: the same number of them in each row for queries and keys.
  void AddStarts(std::int64_t row, std::int64_t length, std::int64_t count, Numbers& starts) {
    std::vector<std::int64_t> within = {0};
    while (static_cast<std::int64_t>(within.size()) < count) {
      const std::int64_t start = 1 + Below(length - 1);
      if (std::find(within.begin(), within.end(), start) == within.end()) within.push_back(start);
    }
    std::sort(within.begin(), within.end());
    for (const std::int64_t start : within) starts.Add(row * length + start);
  }

  void SetSegments(Request& r) {
    const bool same = Chance(3);
    if (same) r.set_key_length(r.query_length());
    for (std::int64_t row = 0; row < r.batch(); ++row) {
      const std::int64_t most = std::min<std::int64_t>({r.query_length(), r.key_length(), 4});
      const std::int64_t count = 1 + Below(most);
      AddStarts(row, r.query_length(), count, *r.mutable_query_segments());
      if (!same) AddStarts(row, r.key_length(), count, *r.mutable_key_segments());
    }
  }

  void SetLists(Request& r) {
    const auto each = [&](Numbers& list, std::int64_t lowest, std::int64_t highest) {
      for (std::int64_t b = 0; b < r.batch(); ++b) list.Add(lowest + Below(highest - lowest + 1));
    };
    if (Chance(3)) each(*r.mutable_query_offsets(), -std::min<std::int64_t>(2, r.query_length()), r.key_length() + 2);
    if (r.query_offsets().empty() && Chance(3)) r.set_query_offset(Below(r.key_length() + 3) - 1);
    if (Chance(2)) each(*r.mutable_query_lengths(), 0, r.query_length());
    if (Chance(2)) each(*r.mutable_key_lengths(), 0, r.key_length());
    if (Chance(3)) each(*r.mutable_key_starts(), 0, std::min<std::int64_t>(r.key_length(), 70));
    const bool causal = r.mask() == v1::MASK_CAUSAL;
    if (causal && Chance(3)) each(*r.mutable_prefix_lengths(), 0, r.key_length());
    if (Chance(3)) {
      for (std::int64_t i = 0; i < r.batch() * ((r.key_length() + 7) / 8); ++i) {
        r.mutable_key_bits()->push_back(static_cast<char>(Below(256) | Below(256)));
      }
    }
    if (Chance(3)) {
      for (std::int64_t i = 0; i < r.heads() * r.key_length(); ++i) r.add_key_bias(static_cast<float>(Below(9)) * 0.1F);
    }
    if (Chance(3)) {
      r.set_kv_batch(1 + Below(3));
      each(*r.mutable_kv_rows(), 0, r.kv_batch() - 1);
    }
  }

  std::mt19937 random_;
};

// A sequence as the formula has it: its rows in the tensors, and what it sees.
struct Sequence {
  std::int64_t row, first_query, queries;  // in q and the output
  std::int64_t kv_row, first_key, keys;    // in k and v
  std::int64_t offset;                     // position of its first query
  std::int64_t entry;                      // in the lists; -1: the request has no lists
};

std::vector<Sequence> SequencesOf(const Call& call) {
  const Request& r = call.request;
  std::vector<Sequence> sequences;
  if (!r.query_segments().empty()) {
    const auto& keys = r.key_segments().empty() ? r.query_segments() : r.key_segments();
    const auto length_of = [](const Numbers& starts, int i, std::int64_t length) {
      const std::int64_t row_end = (starts[i] / length + 1) * length;
      return (i + 1 < starts.size() ? std::min(starts[i + 1], row_end) : row_end) - starts[i];
    };
    for (int i = 0; i < r.query_segments_size(); ++i) {
      const std::int64_t row = r.query_segments(i) / r.query_length();
      const std::int64_t queries = length_of(r.query_segments(), i, r.query_length());
      const std::int64_t key_count = length_of(keys, i, r.key_length());
      sequences.push_back({row, r.query_segments(i) % r.query_length(), queries, row, keys[i] % r.key_length(),
                           key_count, key_count - queries, -1});
    }
    return sequences;
  }
  for (std::int64_t b = 0; b < r.batch(); ++b) {
    const auto i = static_cast<int>(b);
    std::int64_t offset = r.has_query_offset() ? r.query_offset() : r.key_length() - r.query_length();
    if (!r.query_offsets().empty()) offset = r.query_offsets(i);
    sequences.push_back({b, 0, r.query_length(), r.kv_rows().empty() ? b : r.kv_rows(i), 0, r.key_length(), offset, b});
  }
  return sequences;
}

// Whether query i of a sequence attends to key j, as attention.proto says.
bool Sees(const Request& r, bool causal, const Sequence& s, std::int64_t i, std::int64_t j) {
  const std::int64_t position = s.offset + i;
  if (r.has_window_left() && j < position - r.window_left()) return false;
  if (r.has_window_right() && j > position + r.window_right()) return false;
  const bool no_list = s.entry < 0;
  const auto b = static_cast<int>(s.entry);
  const bool in_prefix = !no_list && !r.prefix_lengths().empty() && j < r.prefix_lengths(b);
  if (causal && j > position && !in_prefix) return false;
  if (no_list) return true;
  if (!r.key_starts().empty() && j < r.key_starts(b)) return false;
  if (!r.key_lengths().empty() && j >= r.key_lengths(b)) return false;
  if (!r.query_lengths().empty() && i >= r.query_lengths(b)) return false;
  if (r.key_bits().empty()) return true;
  const std::int64_t byte = b * ((r.key_length() + 7) / 8) + j / 8;
  return (static_cast<unsigned char>(r.key_bits()[static_cast<std::size_t>(byte)]) >> (j % 8) & 1) != 0;
}

struct Result {
  std::vector<double> output;       // in the request's layout
  std::vector<double> log_sum_exp;  // [batch, heads, query_length]
};

Result Formula(const Call& call) {
  const Request& r = call.request;
  const std::vector<float> q = ToFloats(r.dtype(), call.q), k = ToFloats(r.dtype(), call.k),
                           v = ToFloats(r.dtype(), call.v);
  const bool has_bias = r.bias() != v1::BIAS_NONE, bidirectional = r.table() == "encoder";
  const bias::BiasTable table = TestTable(bidirectional);
  const kernel::BiasView bias = ViewOf(table.offset_form(), 0);
  const bool causal = r.mask() == v1::MASK_UNSPECIFIED ? has_bias && !bidirectional : r.mask() == v1::MASK_CAUSAL;
  const std::int64_t dim = r.head_dim(), value_dim = call.value_dim(), kv_heads = call.kv_heads();
  Result result;
  result.output.resize(static_cast<std::size_t>(call.rows() * value_dim));
  result.log_sum_exp.resize(static_cast<std::size_t>(call.rows()), -kInfinity);
  for (const Sequence& s : SequencesOf(call)) {
    for (std::int64_t h = 0; h < r.heads(); ++h) {
      const std::int64_t g = h / (r.heads() / kv_heads);
      for (std::int64_t i = 0; i < s.queries; ++i) {
        std::vector<double> sums(static_cast<std::size_t>(value_dim));
        double total = 0;
        for (std::int64_t j = 0; j < s.keys; ++j) {
          if (!Sees(r, causal, s, i, j)) continue;
          double logit = 0;
          for (std::int64_t d = 0; d < dim; ++d) {
            logit += static_cast<double>(
                         q[IndexOf(r.layout(), r.heads(), r.query_length(), dim, s.row, h, s.first_query + i, d)]) *
                     static_cast<double>(
                         k[IndexOf(r.layout(), kv_heads, r.key_length(), dim, s.kv_row, g, s.first_key + j, d)]);
          }
          logit *= static_cast<double>(r.scale());
          if (has_bias) logit += kernel::BiasAt(bias, r.first_head() + h, s.offset + i - j);
          if (!r.key_bias().empty()) logit += static_cast<double>(r.key_bias(static_cast<int>(h * r.key_length() + j)));
          const double weight = std::exp(logit);
          total += weight;
          for (std::int64_t d = 0; d < value_dim; ++d) {
            sums[static_cast<std::size_t>(d)] +=
                weight *
                static_cast<double>(
                    v[IndexOf(r.layout(), kv_heads, r.key_length(), value_dim, s.kv_row, g, s.first_key + j, d)]);
          }
        }
        if (total == 0) continue;
        for (std::int64_t d = 0; d < value_dim; ++d) {
          result.output[IndexOf(r.layout(), r.heads(), r.query_length(), value_dim, s.row, h, s.first_query + i, d)] =
              sums[static_cast<std::size_t>(d)] / total;
        }
        result.log_sum_exp[static_cast<std::size_t>((s.row * r.heads() + h) * r.query_length() + s.first_query + i)] =
            std::log(total);
      }
    }
  }
  return result;
}

// In several segments, cut within elements.
TensorBytes Cut(std::string_view bytes) {
  TensorBytes tensor;
  tensor.size = bytes.size();
  for (const std::size_t size : {bytes.size() / 3 + 1, bytes.size() / 5 + 2, bytes.size()}) {
    const std::string_view piece = bytes.substr(0, size);
    tensor.Add({reinterpret_cast<const std::byte*>(piece.data()), piece.size()});
    bytes.remove_prefix(piece.size());
  }
  return tensor;
}

class TogetherTest : public testing::Test {
 protected:
  static constexpr std::size_t kRegionBytes = std::size_t{8} << 20;
  static constexpr char kBefore = 0x55;

  TogetherTest() { AddTestModel(registry_); }

  void Expect(const Call& call, std::string_view output, std::string_view log_sum_exp) {
    const Result expected = Formula(call);
    ASSERT_EQ(output.size(), call.output_bytes());
    ASSERT_EQ(log_sum_exp.size(), call.log_sum_exp_bytes());
    const v1::Dtype dtype = call.output_dtype();
    const double rounding = dtype == v1::DTYPE_BF16 ? 0x1p-8 : dtype == v1::DTYPE_FP16 ? 0x1p-11 : 0;
    const std::vector<float> got = ToFloats(dtype, output);
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], expected.output[i], 1e-4 + rounding * std::abs(expected.output[i])) << "output element " << i;
      if (expected.output[i] == 0) {
        ASSERT_EQ(got[i], 0) << "output element " << i;
      }
    }
    const std::vector<float> sums = ToFloats(v1::DTYPE_FP32, log_sum_exp);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (std::isinf(expected.log_sum_exp[i])) {
        ASSERT_EQ(sums[i], expected.log_sum_exp[i]) << "row " << i;
      } else {
        ASSERT_NEAR(sums[i], expected.log_sum_exp[i], 1e-4) << "row " << i;
      }
    }
  }

  absl::StatusOr<AttentionResult> Compute(const Request& request, const RequestTensors& tensors) {
    absl::Notification done;
    absl::StatusOr<AttentionResult> result;
    engine_.Compute(request, tensors, {}, [&](absl::StatusOr<AttentionResult> ended) {
      result = std::move(ended);
      done.Notify();
    });
    EXPECT_TRUE(done.WaitForNotificationWithTimeout(kPatience));
    return result;
  }

  TestRegion region_{kRegionBytes};
  model::Registry registry_{model::RegistryOptions{}};
  AttentionEngine engine_{Limits(), registry_, *kernel::AvailableKernels().front(), 2, &region_.memory};
};

TEST_F(TogetherTest, SentTensorsAndResults) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    const Call call = RandomCall(seed).Make();
    SCOPED_TRACE(call.request.ShortDebugString().substr(0, 500));
    const RequestTensors tensors{Cut(call.q), Cut(call.k), Cut(call.v)};
    // The allocator likes to give the same memory again.
    for (const std::size_t size : {call.output_bytes(), call.log_sum_exp_bytes()}) {
      absl::StatusOr<Buffer> dirty = Buffer::Create(size);
      ASSERT_TRUE(dirty.ok());
      if (size > 0) std::memset(dirty->data(), kBefore, size);
    }
    const absl::StatusOr<AttentionResult> result = Compute(call.request, tensors);
    ASSERT_TRUE(result.ok()) << seed << ": " << result.status();
    const auto bytes = [](const Buffer& buffer) {
      return std::string_view(reinterpret_cast<const char*>(buffer.data()), buffer.size());
    };
    Expect(call, bytes(result->output), bytes(result->log_sum_exp));
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(TogetherTest, SharedTensorsAndResults) {
  for (unsigned seed = 1000; seed < 1150; ++seed) {
    RandomCall random(seed);
    Call call = random.Make();
    SCOPED_TRACE(call.request.ShortDebugString().substr(0, 500));
    std::memset(region_.data(), kBefore, kRegionBytes);
    std::uint64_t end = 0;
    const auto place = [&](std::size_t size) {
      const std::uint64_t at = end + 64;  // bytes between two parts
      end = (at + size + 63) / 64 * 64;
      EXPECT_LT(end, kRegionBytes);
      return at;
    };
    // Each of them is shared or sent.
    RequestTensors tensors;
    Request& r = call.request;
    const auto give = [&](const std::string& bytes, TensorBytes& sent, v1::SharedTensor* (Request::*shared)()) {
      if (random.Chance(2)) {
        sent = Cut(bytes);
      } else {
        *(r.*shared)() = region_.Put(place(bytes.size()), bytes);
      }
    };
    give(call.q, tensors.q, &Request::mutable_q_shared);
    give(call.k, tensors.k, &Request::mutable_k_shared);
    give(call.v, tensors.v, &Request::mutable_v_shared);
    const std::uint64_t output = place(call.output_bytes()), log_sum_exp = place(call.log_sum_exp_bytes());
    *r.mutable_output_shared() = region_.At(output);
    const bool shares_sums = r.return_log_sum_exp() && random.Chance(2);
    if (shares_sums) *r.mutable_log_sum_exp_shared() = region_.At(log_sum_exp);
    const std::string before(region_.Read(0, kRegionBytes));
    const absl::StatusOr<AttentionResult> result = Compute(r, tensors);
    ASSERT_TRUE(result.ok()) << seed << ": " << result.status();
    EXPECT_EQ(result->output.size(), 0U);
    const std::string_view sent(reinterpret_cast<const char*>(result->log_sum_exp.data()), result->log_sum_exp.size());
    Expect(call, region_.Read(output, call.output_bytes()),
           shares_sums ? region_.Read(log_sum_exp, call.log_sum_exp_bytes()) : sent);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
    // Nothing but the results was written.
    std::string after(region_.Read(0, kRegionBytes));
    std::memset(&after[output], kBefore, call.output_bytes());
    if (shares_sums) std::memset(&after[log_sum_exp], kBefore, call.log_sum_exp_bytes());
    ASSERT_TRUE(after == before) << "seed " << seed;
  }
}

}  // namespace
}  // namespace attnd::server
