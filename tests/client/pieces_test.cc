// However a call is cut, its pieces are the call: every row of every tensor in exactly one of them, and every row of
// the output back in its place.
#include "client/src/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "test_request.h"

namespace attnd::client {
namespace {

std::vector<float> Rows(const TensorView& tensor, Layout layout, std::int64_t batch, std::int64_t head,
                        std::int64_t row) {
  const bool sequence_first = layout == Layout::kBatchSequenceHeadDim;
  const std::int64_t heads = tensor.sizes[sequence_first ? 2 : 1], rows = tensor.sizes[sequence_first ? 1 : 2];
  const std::int64_t index = sequence_first ? (batch * rows + row) * heads + head : (batch * heads + head) * rows + row;
  const auto* begin = static_cast<const float*>(tensor.data) + index * tensor.sizes[3];
  return {begin, begin + tensor.sizes[3]};
}

// Of a sequence's key bits.
std::int64_t BitsBytes(const Sizes& sizes) { return (sizes.key_length + 7) / 8; }

struct Case {
  Sizes sizes;
  std::int64_t piece_bytes;
};

class PiecesTest : public testing::TestWithParam<std::tuple<Case, Layout>> {};

TEST_P(PiecesTest, AreTheCall) {
  const auto& [c, layout] = GetParam();
  TestRequest t(c.sizes);
  ComputeRequest& whole = t.request;
  whole.layout = layout;
  if (layout == Layout::kBatchSequenceHeadDim) {
    for (TensorView* tensor : {&whole.q, &whole.k, &whole.v}) std::swap(tensor->sizes[1], tensor->sizes[2]);
  }
  whole.return_log_sum_exp = true;
  for (std::int64_t b = 0; b < c.sizes.batch; ++b) {
    whole.query_lengths.push_back(b % (c.sizes.query_length + 1));
    whole.key_lengths.push_back(b % (c.sizes.key_length + 1));
    whole.query_offsets.push_back(b - 1);
    whole.key_starts.push_back((b + 1) % (c.sizes.key_length + 1));
    whole.prefix_lengths.push_back(c.sizes.key_length - whole.key_starts.back());
    for (std::int64_t i = 0; i < BitsBytes(c.sizes); ++i)
      whole.key_bits.push_back(static_cast<unsigned char>(16 * b + i));
  }
  for (std::int64_t i = 0; i < c.sizes.heads * c.sizes.key_length; ++i) whole.key_bias.push_back(static_cast<float>(i));
  const Shape shape = *CheckRequest(whole);
  std::vector<float> output(t.output_values), log_sum_exp(static_cast<std::size_t>(shape.log_sum_exp_bytes / 4), -1.0F);
  whole.output = {output.data(), output.size() * 4};
  whole.log_sum_exp = {log_sum_exp.data(), log_sum_exp.size() * 4};

  const std::int64_t group = shape.heads / shape.kv_heads;
  std::vector<int> seen(static_cast<std::size_t>(shape.batch * shape.kv_heads));
  std::vector<float> expected(t.output_values);
  float next = 1;
  for (const PieceRange& range : CutIntoPieces(shape, c.piece_bytes)) {
    Piece piece = DescribePiece(whole, shape, range);
    ASSERT_TRUE(SetTensors(whole, shape, range, piece).ok());
    // A piece is a valid call, of the shape it says.
    ComputeRequest alone = piece.request;
    alone.output = {};
    const Shape own = *CheckRequest(alone);
    EXPECT_EQ(own.q_bytes, piece.shape.q_bytes);
    EXPECT_EQ(own.k_bytes, piece.shape.k_bytes);
    EXPECT_EQ(own.v_bytes, piece.shape.v_bytes);
    EXPECT_EQ(own.output_bytes, piece.shape.output_bytes);
    EXPECT_EQ(own.output_sizes, piece.shape.output_sizes);
    EXPECT_TRUE(range.batch == 1 || range.kv_heads == shape.kv_heads);
    const bool some = range.kv_heads != shape.kv_heads;
    EXPECT_EQ(piece.request.first_head.has_value(), some);
    EXPECT_EQ(piece.fields.table_heads, some ? shape.heads : 0);
    EXPECT_EQ(piece.request.first_head.value_or(0), range.first_kv_head * group);
    // Its heads' biases of keys.
    ASSERT_EQ(piece.request.key_bias.size(), static_cast<std::size_t>(own.heads * own.key_length));
    EXPECT_EQ(piece.request.key_bias.front(), static_cast<float>(range.first_kv_head * group * own.key_length));
    EXPECT_EQ(piece.request.key_bias.back(),
              static_cast<float>((range.first_kv_head + range.kv_heads) * group * own.key_length - 1));
    // The output: numbers in order, as the server might send them in slices that end anywhere.
    std::vector<float> values(static_cast<std::size_t>(own.output_bytes / 4));
    for (float& value : values) value = next++;
    const TensorView result{values.data(), DType::kFp32, own.output_sizes};
    std::int64_t at = 0;
    for (std::int64_t b = 0; b < range.batch; ++b) {
      EXPECT_EQ(piece.request.query_lengths[static_cast<std::size_t>(b)],
                whole.query_lengths[static_cast<std::size_t>(range.first_batch + b)]);
      EXPECT_EQ(piece.request.key_lengths[static_cast<std::size_t>(b)],
                whole.key_lengths[static_cast<std::size_t>(range.first_batch + b)]);
      EXPECT_EQ(piece.request.query_offsets[static_cast<std::size_t>(b)], range.first_batch + b - 1);
      EXPECT_EQ(piece.request.key_starts[static_cast<std::size_t>(b)],
                whole.key_starts[static_cast<std::size_t>(range.first_batch + b)]);
      EXPECT_EQ(piece.request.prefix_lengths[static_cast<std::size_t>(b)],
                whole.prefix_lengths[static_cast<std::size_t>(range.first_batch + b)]);
      for (std::int64_t i = 0; i < BitsBytes(c.sizes); ++i) {
        EXPECT_EQ(piece.request.key_bits[static_cast<std::size_t>(b * BitsBytes(c.sizes) + i)],
                  16 * (range.first_batch + b) + i);
      }
      for (std::int64_t g = 0; g < range.kv_heads; ++g) {
        const std::int64_t batch = range.first_batch + b, kv_head = range.first_kv_head + g;
        ++seen[static_cast<std::size_t>(batch * shape.kv_heads + kv_head)];
        for (std::int64_t j = 0; j < shape.key_length; ++j) {
          EXPECT_EQ(Rows(piece.request.k, layout, b, g, j), Rows(whole.k, layout, batch, kv_head, j));
          EXPECT_EQ(Rows(piece.request.v, layout, b, g, j), Rows(whole.v, layout, batch, kv_head, j));
        }
        for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
          const std::int64_t head = range.first_kv_head * group + h;
          for (std::int64_t i = 0; i < shape.query_length; ++i) {
            EXPECT_EQ(Rows(piece.request.q, layout, b, h, i), Rows(whole.q, layout, batch, head, i));
            const TensorView all{expected.data(), DType::kFp32, shape.output_sizes};
            const std::vector<float> row = Rows(result, layout, b, h, i);
            const bool sequence_first = layout == Layout::kBatchSequenceHeadDim;
            at = sequence_first ? (batch * shape.query_length + i) * shape.heads + head
                                : (batch * shape.heads + head) * shape.query_length + i;
            std::copy(row.begin(), row.end(), expected.begin() + at * shape.value_head_dim);
            static_cast<float*>(piece.request.log_sum_exp.data)[(b * own.heads + h) * shape.query_length + i] =
                static_cast<float>((batch * shape.heads + head) * shape.query_length + i);
          }
        }
      }
    }
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    const auto size = static_cast<std::size_t>(own.output_bytes);
    if (piece.scattered) {
      EXPECT_TRUE(piece.request.output_in_segments);
      std::vector<Tensor::Segment> segments;
      for (std::size_t i = 0; i < size; i += 7) segments.emplace_back(bytes + i, std::min<std::size_t>(7, size - i));
      Scatter(Tensor(DType::kFp32, own.output_sizes, segments, nullptr), whole, shape, range);
    } else {
      ASSERT_EQ(piece.request.output.size_bytes, size);
      std::memcpy(piece.request.output.data, bytes, size);
    }
  }
  EXPECT_THAT(seen, testing::Each(1));
  EXPECT_EQ(output, expected);
  for (std::size_t i = 0; i < log_sum_exp.size(); ++i) EXPECT_EQ(log_sum_exp[i], static_cast<float>(i));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PiecesTest,
    testing::Combine(testing::Values(Case{{}, 1}, Case{{}, 1000}, Case{{}, std::int64_t{1} << 40},
                                     Case{{1, 8, 8, 5, 7, 4, 4}, 1}, Case{{1, 8, 2, 5, 7, 4, 3}, 1},
                                     Case{{5, 6, 3, 2, 3, 4, 2}, 700}, Case{{7, 2, 1, 1, 9, 8, 8}, 1500},
                                     Case{{3, 7, 7, 1, 1, 3, 5}, 150}, Case{{6, 2, 2, 3, 19, 4, 4}, 900},
                                     Case{{1, 1, 1, 9, 9, 9, 9}, 1}),
                     testing::Values(Layout::kBatchHeadSequenceDim, Layout::kBatchSequenceHeadDim)));

// Whatever heads a piece has: they are not a table's.
TEST(DescribePieceTest, WithoutBiasNoHeadIsATables) {
  TestRequest t({2, 8, 4, 5, 7, 4, 4});
  t.request.bias = Bias::kNone;
  t.request.model = "";
  std::vector<float> output(t.output_values);
  t.request.output = {output.data(), output.size() * sizeof(float)};
  const Shape shape = *CheckRequest(t.request);
  const std::vector<PieceRange> ranges = CutIntoPieces(shape, 1);
  ASSERT_EQ(ranges.size(), 8U);
  for (const PieceRange& range : ranges) {
    Piece piece = DescribePiece(t.request, shape, range);
    ASSERT_TRUE(SetTensors(t.request, shape, range, piece).ok());
    EXPECT_EQ(piece.request.first_head, std::nullopt);
    EXPECT_EQ(piece.fields.table_heads, 0);
    EXPECT_TRUE(CheckRequest(piece.request).ok()) << CheckRequest(piece.request).status();
    EXPECT_TRUE(piece.request.key_bits.empty());
  }
}

TEST(CutIntoPiecesTest, PiecesAreAboutAsLargeAsAskedFor) {
  TestRequest t({4, 8, 8, 64, 64, 16, 16});
  const Shape shape = *CheckRequest(t.request);
  const std::int64_t total = shape.q_bytes + shape.k_bytes + shape.v_bytes + shape.output_bytes;
  EXPECT_EQ(CutIntoPieces(shape, total).size(), 1U);
  EXPECT_EQ(CutIntoPieces(shape, total / 2).size(), 2U);
  EXPECT_EQ(CutIntoPieces(shape, total / 8).size(), 8U);
  EXPECT_EQ(CutIntoPieces(shape, 1).size(), 32U);  // one for each sequence and head
}

}  // namespace
}  // namespace attnd::client
