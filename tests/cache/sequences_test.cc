// Sequences against plain lists of tokens.
#include "cache/sequences.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernel/attention.h"
#include "kernel/reference.h"
#include "kernel/registry.h"
#include "problem.h"
#include "tensor/convert.h"

namespace attnd::cache {
namespace {

using kernel::SegmentedTensor;
using kernel::TensorView;
using tensor::DType;

float Rounded(float value, DType dtype) {
  std::byte bytes[4];
  const std::size_t size = tensor::SizeOf(dtype);
  tensor::ConvertFromFloat(dtype, {&value, 1}, {bytes, size});
  float rounded = 0;
  tensor::ConvertToFloat(dtype, {bytes, size}, {&rounded, 1});
  return rounded;
}

// A token in one layer: its keys [kv_heads, head_dim] and its values [kv_heads, value_head_dim].
struct Token {
  std::vector<float> k, v;
};

// What Sequences is to be: tokens [sequence][layer][token].
using Contents = std::vector<std::vector<std::vector<Token>>>;

// Rows to be appended, in the strange forms in which messages bring them.
class Rows {
 public:
  Rows(const LayerShape& shape, std::int64_t sequences, std::int64_t tokens, DType dtype, std::mt19937& random)
      : shape_(shape), tokens_(tokens), rows_before_heads_(random() % 2 == 0) {
    std::normal_distribution<float> normal;
    const auto make = [&](std::int64_t dim, std::vector<float>& values) {
      values.resize(static_cast<std::size_t>(sequences * shape.kv_heads * tokens * dim));
      for (float& value : values) value = Rounded(normal(random), dtype);
      const std::int64_t segment_bytes = random() % 2 == 0 ? 1 + static_cast<std::int64_t>(random() % 300) : 0;
      return SegmentedTensor(values, dtype, segment_bytes, static_cast<std::int64_t>(random() % 4));
    };
    k_ = make(shape.head_dim, k_values_);
    v_ = make(shape.value_head_dim, v_values_);
  }

  TensorView k() const { return View(k_, shape_.head_dim); }
  TensorView v() const { return View(v_, shape_.value_head_dim); }
  // A row as it is kept.
  Token At(std::int64_t sequence, std::int64_t row, DType kept) const {
    return {Read(k_values_, sequence, row, shape_.head_dim, kept),
            Read(v_values_, sequence, row, shape_.value_head_dim, kept)};
  }

 private:
  std::int64_t HeadStride(std::int64_t dim) const { return rows_before_heads_ ? dim : tokens_ * dim; }
  std::int64_t RowStride(std::int64_t dim) const { return rows_before_heads_ ? shape_.kv_heads * dim : dim; }
  TensorView View(const SegmentedTensor& tensor, std::int64_t dim) const {
    return tensor.View(shape_.kv_heads * tokens_ * dim, HeadStride(dim), RowStride(dim));
  }
  std::vector<float> Read(const std::vector<float>& values, std::int64_t sequence, std::int64_t row, std::int64_t dim,
                          DType kept) const {
    std::vector<float> read;
    for (std::int64_t head = 0; head < shape_.kv_heads; ++head) {
      for (std::int64_t d = 0; d < dim; ++d) {
        const std::int64_t at =
            sequence * shape_.kv_heads * tokens_ * dim + head * HeadStride(dim) + row * RowStride(dim) + d;
        read.push_back(Rounded(values[static_cast<std::size_t>(at)], kept));
      }
    }
    return read;
  }

  const LayerShape shape_;
  const std::int64_t tokens_;
  const bool rows_before_heads_;
  std::vector<float> k_values_, v_values_;
  SegmentedTensor k_, v_;
};

// What is wrong with the sequences; empty if nothing is.
std::string Fault(const Sequences& sequences, const Contents& expected) {
  std::set<const std::byte*> pages;
  std::vector<const std::byte* const*> lists;
  for (std::int64_t s = 0; s < sequences.sequences(); ++s) lists.push_back(sequences.PagesOf(s));
  for (std::int64_t s = 0; s < sequences.sequences(); ++s) {
    const auto& layers = expected[static_cast<std::size_t>(s)];
    std::size_t most = 0;
    for (std::int64_t layer = 0; layer < sequences.shape().layers(); ++layer) {
      const std::vector<Token>& tokens = layers[static_cast<std::size_t>(layer)];
      const std::string where = absl::StrCat("sequence ", s, ", layer ", layer);
      if (sequences.length(layer, s) != static_cast<std::int64_t>(tokens.size())) {
        return absl::StrCat(where, ": length ", sequences.length(layer, s), ", expected ", tokens.size());
      }
      most = std::max(most, tokens.size());
      const LayerShape& shape = sequences.shape().layer(layer);
      const TensorView k = sequences.shape().Keys(layer, lists.data());
      const TensorView v = sequences.shape().Values(layer, lists.data());
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        const auto row = static_cast<std::int64_t>(t);
        std::vector<float> keys, values;
        for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
          for (std::int64_t d = 0; d < shape.head_dim; ++d) {
            keys.push_back(static_cast<float>(kernel::ElementAt(k, s, head, row, d)));
          }
          for (std::int64_t d = 0; d < shape.value_head_dim; ++d) {
            values.push_back(static_cast<float>(kernel::ElementAt(v, s, head, row, d)));
          }
        }
        if (keys != tokens[t].k || values != tokens[t].v) return absl::StrCat(where, ": token ", t);
      }
    }
    for (std::size_t page = 0; page * kPageTokens < most; ++page) {
      pages.insert(lists[static_cast<std::size_t>(s)][page]);
    }
  }
  if (sequences.pages_in_use() != static_cast<std::int64_t>(pages.size())) {
    return absl::StrCat(sequences.pages_in_use(), " pages in use, of which ", pages.size(), " are of sequences");
  }
  return "";
}

// Sequences, what they are to be, and random changes of both.
class Trial {
 public:
  Trial(std::vector<LayerShape> layers, DType dtype, std::int64_t count, std::int64_t most_tokens, unsigned seed)
      : random_(seed), count_(count), most_tokens_(most_tokens) {
    sequences_ = *Sequences::Create(*PageShape::Make(layers, dtype), count, most_tokens);
    now_.assign(static_cast<std::size_t>(count), std::vector<std::vector<Token>>(layers.size()));
    committed_ = now_;
  }

  const Sequences& sequences() const { return *sequences_; }
  const Contents& expected() const { return now_; }
  std::int64_t AtMost(std::int64_t most) {
    return static_cast<std::int64_t>(random_() % static_cast<unsigned>(most + 1));
  }

  // False if there was no page for it, which needs tokens that were dropped in the same change.
  bool Append(std::int64_t layer, std::int64_t most_rows) {
    std::vector<std::int64_t> counts;
    for (std::int64_t s = 0; s < count_; ++s) {
      counts.push_back(std::min(AtMost(most_rows), most_tokens_ - sequences_->length(layer, s)));
    }
    const std::int64_t tokens = std::max<std::int64_t>(1, *std::max_element(counts.begin(), counts.end()));
    const DType kept = sequences_->shape().dtype();
    const DType sent = AtMost(3) == 0 ? DType::kF32 : kept;
    const Rows rows(sequences_->shape().layer(layer), count_, tokens, sent, random_);
    const absl::Status appended = sequences_->Append(layer, counts, rows.k(), rows.v());
    if (!appended.ok()) {
      EXPECT_EQ(appended.code(), absl::StatusCode::kResourceExhausted) << appended;
      EXPECT_TRUE(dropped_);
      return false;
    }
    for (std::int64_t s = 0; s < count_; ++s) {
      for (std::int64_t r = 0; r < counts[static_cast<std::size_t>(s)]; ++r) {
        TokensOf(s, layer).push_back(rows.At(s, r, kept));
      }
    }
    return true;
  }

  void Gather() {
    std::vector<std::int32_t> from;
    for (std::int64_t s = 0; s < count_; ++s) from.push_back(static_cast<std::int32_t>(AtMost(count_ - 1)));
    sequences_->Gather(from);
    const Contents before = now_;
    for (std::size_t s = 0; s < from.size(); ++s) now_[s] = before[static_cast<std::size_t>(from[s])];
    dropped_ = true;
  }

  void Truncate() {
    const std::int64_t s = AtMost(count_ - 1);
    const std::int64_t tokens = AtMost(3) == 0 ? 0 : AtMost(9) == 0 ? INT64_MAX : AtMost(most_tokens_);
    sequences_->Truncate(s, tokens);
    for (std::vector<Token>& layer : now_[static_cast<std::size_t>(s)]) {
      if (static_cast<std::int64_t>(layer.size()) > tokens) layer.resize(static_cast<std::size_t>(tokens));
    }
    dropped_ = true;
  }

  void Commit() {
    sequences_->Commit();
    committed_ = now_;
    dropped_ = false;
  }
  void Rollback() {
    sequences_->Rollback();
    now_ = committed_;
    dropped_ = false;
  }

 private:
  std::vector<Token>& TokensOf(std::int64_t s, std::int64_t layer) {
    return now_[static_cast<std::size_t>(s)][static_cast<std::size_t>(layer)];
  }

  std::mt19937 random_;
  const std::int64_t count_;
  const std::int64_t most_tokens_;
  std::unique_ptr<Sequences> sequences_;
  Contents now_, committed_;
  bool dropped_ = false;  // tokens, since the last commit
};

TEST(Sequences, AreWhatWasAppendedWhateverHappens) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    const DType dtype = std::vector{DType::kF32, DType::kF16, DType::kBF16}[seed % 3];
    std::vector<LayerShape> layers = {{2, 5, 3}};
    if (seed % 2 == 0) layers.push_back({1, 8, 8});
    Trial trial(layers, dtype, 1 + seed % 5, seed % 4 == 0 ? 64 : 200, seed);
    bool changed = false;
    for (int step = 0; step < 150; ++step) {
      bool failed = false;
      switch (trial.AtMost(9)) {
        case 0:
        case 1:
          trial.Gather();
          break;
        case 2:
          trial.Truncate();
          break;
        case 3:
          trial.Rollback();
          changed = false;
          break;
        case 4:
          failed = !trial.Append(trial.AtMost(static_cast<std::int64_t>(layers.size()) - 1), 90);
          break;
        default:
          failed = !trial.Append(trial.AtMost(static_cast<std::int64_t>(layers.size()) - 1), 3);
      }
      changed = true;
      if (failed) trial.Rollback();
      if (!failed && trial.AtMost(2) > 0) {
        trial.Commit();
        changed = false;
        ASSERT_EQ(Fault(trial.sequences(), trial.expected()), "") << "seed " << seed << ", step " << step;
      }
    }
    if (changed) trial.Rollback();
    EXPECT_EQ(Fault(trial.sequences(), trial.expected()), "") << "seed " << seed;
  }
}

// Between commits too sequences read as they are then; only more pages are in use.
TEST(Sequences, ChangesTakeEffectAtOnce) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Trial trial({{2, 4, 4}, {1, 4, 4}}, DType::kF32, 3, 300, seed);
    for (int step = 0; step < 30; ++step) {
      trial.Append(trial.AtMost(1), 40);
      trial.Commit();
      trial.Gather();
      if (trial.AtMost(1) == 0) trial.Truncate();
      const bool appended = trial.Append(0, 2) && trial.Append(1, 2);
      if (appended) {
        const std::string fault = Fault(trial.sequences(), trial.expected());
        EXPECT_TRUE(fault.empty() || fault.find("pages in use") != std::string::npos) << fault;
      }
      if (appended && trial.AtMost(1) == 0) {
        trial.Commit();
      } else {
        trial.Rollback();
      }
      ASSERT_EQ(Fault(trial.sequences(), trial.expected()), "") << "seed " << seed << ", step " << step;
    }
  }
}

Rows RowsOf(const Sequences& sequences, std::int64_t tokens, std::mt19937& random) {
  return Rows(sequences.shape().layer(0), sequences.sequences(), tokens, sequences.shape().dtype(), random);
}

// A beam that goes on in two ways: what it has is in memory once, and each writes a page of its own.
TEST(Sequences, ShareUntilOneWrites) {
  std::mt19937 random(1);
  auto sequences = *Sequences::Create(*PageShape::Make({{{1, 4, 4}}}, DType::kF32), 4, 1000);
  const Rows rows = RowsOf(*sequences, 200, random);
  ASSERT_TRUE(sequences->Append(0, {200, 0, 0, 0}, rows.k(), rows.v()).ok());
  sequences->Commit();
  EXPECT_EQ(sequences->pages_in_use(), 4);
  EXPECT_EQ(sequences->bytes_in_use(), 4 * sequences->shape().bytes());
  sequences->Gather({0, 0, 0, 0});
  sequences->Commit();
  EXPECT_EQ(sequences->pages_in_use(), 4);
  EXPECT_EQ(sequences->PagesOf(0)[3], sequences->PagesOf(3)[3]);
  ASSERT_TRUE(sequences->Append(0, {1, 1, 0, 0}, rows.k(), rows.v()).ok());
  sequences->Commit();
  EXPECT_EQ(sequences->pages_in_use(), 6);
  EXPECT_EQ(sequences->PagesOf(0)[2], sequences->PagesOf(3)[2]);
  EXPECT_NE(sequences->PagesOf(0)[3], sequences->PagesOf(1)[3]);
  EXPECT_EQ(sequences->PagesOf(2)[3], sequences->PagesOf(3)[3]);
  for (std::int64_t s = 0; s < 4; ++s) sequences->Truncate(s, 0);
  sequences->Commit();
  EXPECT_EQ(sequences->pages_in_use(), 0);
}

// Beams that only change places copy nothing, though the step can still be taken back.
TEST(Sequences, APermutationCopiesNothing) {
  std::mt19937 random(1);
  auto sequences = *Sequences::Create(*PageShape::Make({{{1, 4, 4}}}, DType::kF32), 3, 1000);
  const Rows rows = RowsOf(*sequences, 100, random);
  ASSERT_TRUE(sequences->Append(0, {100, 70, 90}, rows.k(), rows.v()).ok());
  sequences->Commit();
  sequences->Gather({2, 0, 1});
  ASSERT_TRUE(sequences->Append(0, {1, 1, 1}, rows.k(), rows.v()).ok());
  EXPECT_EQ(sequences->pages_in_use(), 6);
  sequences->Rollback();
  EXPECT_EQ(sequences->length(0, 0), 100);
  sequences->Gather({2, 0, 1});
  ASSERT_TRUE(sequences->Append(0, {1, 1, 1}, rows.k(), rows.v()).ok());
  sequences->Commit();
  EXPECT_EQ(sequences->pages_in_use(), 6);
  EXPECT_EQ(sequences->length(0, 0), 91);
}

// A page with another's tokens beyond its own: those are kept while the change may be taken back.
TEST(Sequences, WhatOthersHaveBehindOnesEndIsKept) {
  std::mt19937 random(1);
  auto sequences = *Sequences::Create(*PageShape::Make({{{1, 4, 4}}}, DType::kF32), 2, 100);
  const Rows rows = RowsOf(*sequences, 30, random);
  ASSERT_TRUE(sequences->Append(0, {30, 0}, rows.k(), rows.v()).ok());
  sequences->Gather({0, 0});
  sequences->Truncate(1, 10);
  sequences->Commit();
  sequences->Gather({1, 1});
  sequences->Truncate(1, 0);  // one alone has the page, and nobody the tokens from 10 on, but for a rollback
  ASSERT_TRUE(sequences->Append(0, {5, 0}, rows.k(), rows.v()).ok());
  sequences->Rollback();
  const std::byte* const* list = sequences->PagesOf(0);
  const TensorView keys = sequences->shape().Keys(0, &list);
  for (std::int64_t row = 0; row < 30; ++row) {
    EXPECT_EQ(kernel::ElementAt(keys, 0, 0, row, 2), rows.At(0, row, DType::kF32).k[2]) << row;
  }
}

// Layers of other lengths, as between the steps of one token.
TEST(Sequences, AShortLayerIsAppendedToInPlace) {
  std::mt19937 random(1);
  auto sequences = *Sequences::Create(*PageShape::Make({{{1, 4, 4}, {1, 4, 4}}}, DType::kF32), 1, 65);
  const Rows rows = RowsOf(*sequences, 65, random);
  ASSERT_TRUE(sequences->Append(1, {65}, rows.k(), rows.v()).ok());
  sequences->Commit();
  sequences->Gather({0});
  ASSERT_TRUE(sequences->Append(0, {65}, rows.k(), rows.v()).ok());
  EXPECT_EQ(sequences->pages_in_use(), 2);
  sequences->Rollback();
  EXPECT_EQ(sequences->length(0, 0), 0);
  EXPECT_EQ(sequences->length(1, 0), 65);
}

TEST(Sequences, EndAtTheirMost) {
  std::mt19937 random(1);
  auto sequences = *Sequences::Create(*PageShape::Make({{{1, 4, 4}}}, DType::kF32), 2, 100);
  const Rows rows = RowsOf(*sequences, 101, random);
  const absl::Status more = sequences->Append(0, {3, 101}, rows.k(), rows.v());
  EXPECT_EQ(more.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(more.message(), "sequence 1 has 0 tokens and would get 101 more, of at most 100");
  sequences->Rollback();
  EXPECT_EQ(sequences->length(0, 0), 0);
  EXPECT_EQ(sequences->pages_in_use(), 0);
  EXPECT_TRUE(sequences->Append(0, {100, 99}, rows.k(), rows.v()).ok());
  sequences->Commit();
  EXPECT_FALSE(sequences->Append(0, {1, 0}, rows.k(), rows.v()).ok());
  sequences->Rollback();
  EXPECT_TRUE(sequences->Append(0, {0, 1}, rows.k(), rows.v()).ok());
}

TEST(Sequences, SizesAreCountedWithoutOverflow) {
  const PageShape shape = *PageShape::Make({{{8, 64, 64}}}, DType::kF32);
  constexpr std::int64_t kMany = std::int64_t{1} << 40;
  EXPECT_EQ(Sequences::Create(shape, kMany, kMany).status().code(), absl::StatusCode::kResourceExhausted);
}

// Attention over the pages gives the bits of attention over the same tokens in one tensor.
TEST(Sequences, KernelsReadThem) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Trial trial({{1, 3, 3}, {2, 32, 16}}, dtype, 4, 400, 5);
    for (int step = 0; step < 12; ++step) {
      if (step % 3 == 2) trial.Gather();
      ASSERT_TRUE(trial.Append(1, step == 0 ? 200 : 9));
      trial.Commit();
    }
    const Sequences& sequences = trial.sequences();
    std::vector<std::int64_t> lengths, offsets;
    std::vector<const std::byte* const*> lists;
    for (std::int64_t s = 0; s < 4; ++s) {
      lengths.push_back(sequences.length(1, s));
      offsets.push_back(lengths.back() - 2);
      lists.push_back(sequences.PagesOf(s));
    }
    kernel::ProblemSpec spec{.batch = 4, .heads = 4, .kv_heads = 2, .queries = 2, .keys = 400};
    spec.head_dim = 32;
    spec.value_head_dim = 16;
    spec.dtype = dtype;
    spec.key_lengths = lengths;
    spec.query_offsets = offsets;
    kernel::Problem problem(spec);
    const auto fill = [&](std::vector<float>& values, std::int64_t dim, std::vector<float> Token::*part) {
      for (std::int64_t s = 0; s < 4; ++s) {
        const std::vector<Token>& tokens = trial.expected()[static_cast<std::size_t>(s)][1];
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          for (std::int64_t h = 0; h < 2; ++h) {
            std::copy_n((tokens[t].*part).begin() + h * dim, dim,
                        values.begin() + ((s * 2 + h) * 400 + static_cast<std::int64_t>(t)) * dim);
          }
        }
      }
    };
    fill(problem.k, 32, &Token::k);
    fill(problem.v, 16, &Token::v);
    problem.Rebuild();
    kernel::Attention paged = problem.attention();
    paged.k = sequences.shape().Keys(1, lists.data());
    paged.v = sequences.shape().Values(1, lists.data());
    for (const kernel::Kernel* kernel : kernel::TestedKernels()) {
      problem.Spoil();
      kernel::RunAttention(problem.attention(), *kernel);
      const std::vector<std::byte> expected = problem.output_bytes();
      problem.Spoil();
      kernel::RunAttention(paged, *kernel, 3);
      EXPECT_EQ(problem.output_bytes(), expected) << kernel::NameOf(*kernel);
    }
  }
}

}  // namespace
}  // namespace attnd::cache
