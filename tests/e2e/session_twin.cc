#include "session_twin.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tensor/convert.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;

tensor::DType EngineType(v1::Dtype dtype) {
  return dtype == v1::DTYPE_FP32   ? tensor::DType::kF32
         : dtype == v1::DTYPE_FP16 ? tensor::DType::kF16
                                   : tensor::DType::kBF16;
}

std::string BytesOf(const std::vector<float>& values, v1::Dtype dtype) {
  std::string bytes(values.size() * tensor::SizeOf(EngineType(dtype)), '\0');
  tensor::ConvertFromFloat(EngineType(dtype), values, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
  return bytes;
}

void Round(std::vector<float>& values, v1::Dtype dtype) {
  const std::string bytes = BytesOf(values, dtype);
  tensor::ConvertToFloat(EngineType(dtype), {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
                         absl::MakeSpan(values));
}

struct Token {
  std::vector<float> k, v;  // [kv_heads, dim], rounded to the session's dtype
};
using Tokens = std::vector<Token>;

}  // namespace

class Twin::Impl {
 public:
  Impl(SessionServer& server, Door door, const v1::SessionOpen& open, unsigned seed)
      : server_(server), open_(open), random_(seed), stream_(std::make_unique<Stream>(server, door, open)) {
    EXPECT_TRUE(stream_->opened());
    EXPECT_GT(stream_->facts().reserved_bytes(), 0);
    for (const v1::SessionLayer& layer : open.layers()) {
      const bool self = layer.kind() == v1::SESSION_LAYER_KIND_SELF;
      state_.tokens.emplace_back(static_cast<std::size_t>(self ? open.rows() : open.sources()));
    }
    for (std::int64_t row = 0; row < open.rows(); ++row) {
      state_.row_sources.push_back(open.sources() == 0 ? 0 : row / (open.rows() / open.sources()));
      state_.key_starts.push_back(0);
    }
  }

  Stream& stream() { return *stream_; }

  // A step that is right, and what it is to give.
  void TakeStep() {
    v1::SessionRequest request;
    const State before = state_;
    v1::SessionStep& step = *request.mutable_step();
    step.set_step(next_);
    step.set_layer(Below(open_.layers_size()));
    step.set_layout(Below(2) == 0 ? v1::LAYOUT_BATCH_HEAD_SEQUENCE_DIM : v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM);
    step.set_dtype(Below(3) == 0 ? v1::DTYPE_FP32 : open_.dtype());
    ChangeRows(step);
    if (Below(4) > 0) Append(request);
    if (Below(3) > 0) Ask(request);
    const int fate = Below(8);
    if (fate == 0) {
      Spoil(request);
      state_ = before;
      return;
    }
    if (fate == 3 && !stream_->facts().resume_token().empty()) {
      Lose(request);
      if (stream_->facts().last_step() != next_) {
        state_ = before;
        return;
      }
      stream_->Ask(request);  // for its answer
    } else if (fate == 1) {
      v1::SessionRequest cancel;
      cancel.mutable_cancel()->set_step(next_);
      ASSERT_TRUE(stream_->Write(request));
      ASSERT_TRUE(stream_->Write(cancel));
      ASSERT_TRUE(stream_->Read());
      if (stream_->reply().result().code() == StatusCode::CANCELLED) {
        state_ = before;
        return;
      }
    } else {
      stream_->Ask(request);
    }
    Check(request);
    ++next_;
    if (fate == 2) {  // once more, as after a lost answer
      stream_->Ask(request);
      Check(request);
    }
  }

 private:
  struct State {
    std::vector<std::vector<Tokens>> tokens;  // [layer][row or source]
    std::vector<std::int64_t> row_sources, key_starts;
    std::string key_bits;
    std::int64_t key_bits_length = 0;
  };

  // The connection, with a step under way or none, and goes on by either door.
  void Lose(const v1::SessionRequest& request) {
    if (Below(4) > 0) {
      EXPECT_TRUE(stream_->Write(request));
      if (Below(2) == 0) stream_->Read();
    }
    if (Below(3) > 0) stream_->Cancel();  // otherwise the server ends it
    const std::string token = stream_->facts().resume_token();
    stream_ = Stream::Resumed(server_, Below(2) == 0 ? Door::kGrpc : Door::kLocal, *stream_);
    ASSERT_TRUE(stream_->opened()) << stream_->Finish().message;
    EXPECT_EQ(stream_->facts().resume_token(), token);
    EXPECT_GE(stream_->facts().last_step() + 1, next_);
    EXPECT_LE(stream_->facts().last_step(), next_);
  }

  int Below(std::int64_t most) { return static_cast<int>(random_() % static_cast<unsigned>(most)); }
  const v1::SessionLayer& LayerOf(const v1::SessionStep& step) const {
    return open_.layers(static_cast<int>(step.layer()));
  }
  static bool IsSelf(const v1::SessionLayer& layer) { return layer.kind() == v1::SESSION_LAYER_KIND_SELF; }
  static std::int64_t KvHeads(const v1::SessionLayer& layer) {
    return layer.kv_heads() == 0 ? kHeads : layer.kv_heads();
  }
  static std::int64_t ValueDim(const v1::SessionLayer& layer) {
    return layer.value_head_dim() == 0 ? layer.head_dim() : layer.value_head_dim();
  }

  std::vector<float> Random(std::int64_t count, v1::Dtype dtype) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random_);
    Round(values, dtype);
    return values;
  }
  // Where an element of a [batch, heads, rows, dim] tensor stands in a layout.
  static std::size_t At(v1::Layout layout, std::int64_t heads, std::int64_t rows, std::int64_t dim, std::int64_t b,
                        std::int64_t h, std::int64_t r) {
    const bool sequence_first = layout == v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM;
    const std::int64_t row = sequence_first ? (b * rows + r) * heads + h : (b * heads + h) * rows + r;
    return static_cast<std::size_t>(row * dim);
  }

  void ChangeRows(v1::SessionStep& step) {
    if (Below(4) == 0) {
      const State before = state_;
      for (std::size_t row = 0; row < before.row_sources.size(); ++row) {
        const auto from = static_cast<std::size_t>(Below(open_.rows()));
        step.add_reorder(static_cast<std::int64_t>(from));
        state_.row_sources[row] = before.row_sources[from];
        state_.key_starts[row] = before.key_starts[from];
        for (int layer = 0; layer < open_.layers_size(); ++layer) {
          if (!IsSelf(open_.layers(layer))) continue;
          state_.tokens[static_cast<std::size_t>(layer)][row] = before.tokens[static_cast<std::size_t>(layer)][from];
        }
      }
    }
    if (Below(6) == 0) {
      for (std::int64_t row = 0; row < open_.rows(); ++row) {
        const std::int64_t tokens = Below(3) == 0 ? Below(60) : 1000;
        step.add_truncate(tokens);
        for (int layer = 0; layer < open_.layers_size(); ++layer) {
          Tokens& kept = state_.tokens[static_cast<std::size_t>(layer)]
                                      [static_cast<std::size_t>(IsSelf(open_.layers(layer)) ? row : 0)];
          if (!IsSelf(open_.layers(layer))) continue;
          if (kept.size() > static_cast<std::size_t>(tokens)) kept.resize(static_cast<std::size_t>(tokens));
        }
      }
    }
    if (Below(8) == 0) {
      for (std::int64_t& start : state_.key_starts) step.add_key_starts(start = Below(20));
    }
    if (open_.sources() > 0 && Below(8) == 0) {
      state_.key_bits_length = 1 + Below(150);
      state_.key_bits.clear();
      for (std::int64_t i = 0; i < open_.sources() * ((state_.key_bits_length + 7) / 8); ++i) {
        state_.key_bits.push_back(static_cast<char>(Below(256)));
      }
      step.set_key_bits(state_.key_bits);
      step.set_key_bits_length(state_.key_bits_length);
    }
    std::vector<Tokens>& tokens = state_.tokens[static_cast<std::size_t>(step.layer())];
    if (Below(2) == 0) {
      for (const Tokens& kept : tokens) step.add_expected_lengths(static_cast<std::int64_t>(kept.size()));
    }
  }

  void Append(v1::SessionRequest& request) {
    v1::SessionStep& step = *request.mutable_step();
    const v1::SessionLayer& layer = LayerOf(step);
    std::vector<Tokens>& tokens = state_.tokens[static_cast<std::size_t>(step.layer())];
    const std::int64_t most = IsSelf(layer) ? open_.max_tokens() : open_.max_source_tokens();
    const std::int64_t length = 1 + (Below(3) == 0 ? Below(70) : Below(2));
    std::vector<std::int64_t> counts;
    for (const Tokens& kept : tokens) {
      const std::int64_t room = most - static_cast<std::int64_t>(kept.size());
      counts.push_back(std::min<std::int64_t>({room, length, Below(2) == 0 ? length : Below(length + 1)}));
    }
    step.set_key_length(length);
    for (const std::int64_t count : counts) step.add_key_lengths(count);
    const auto count = static_cast<std::int64_t>(tokens.size());
    const std::int64_t heads = KvHeads(layer), dim = layer.head_dim(), value_dim = ValueDim(layer);
    std::vector<float> k = Random(count * heads * length * dim, step.dtype());
    std::vector<float> v = Random(count * heads * length * value_dim, step.dtype());
    request.set_k(BytesOf(k, step.dtype()));
    request.set_v(BytesOf(v, step.dtype()));
    Round(k, open_.dtype());
    Round(v, open_.dtype());
    for (std::int64_t s = 0; s < count; ++s) {
      for (std::int64_t r = 0; r < counts[static_cast<std::size_t>(s)]; ++r) {
        Token token;
        for (std::int64_t h = 0; h < heads; ++h) {
          const auto key = k.begin() + static_cast<std::ptrdiff_t>(At(step.layout(), heads, length, dim, s, h, r));
          const auto value =
              v.begin() + static_cast<std::ptrdiff_t>(At(step.layout(), heads, length, value_dim, s, h, r));
          token.k.insert(token.k.end(), key, key + dim);
          token.v.insert(token.v.end(), value, value + value_dim);
        }
        tokens[static_cast<std::size_t>(s)].push_back(std::move(token));
      }
    }
  }

  void Ask(v1::SessionRequest& request) {
    v1::SessionStep& step = *request.mutable_step();
    const v1::SessionLayer& layer = LayerOf(step);
    step.set_query_length(1 + Below(3));
    if (Below(3) == 0) {
      for (std::int64_t row = 0; row < open_.rows(); ++row) step.add_query_lengths(Below(step.query_length() + 1));
    }
    step.set_return_log_sum_exp(Below(3) == 0);
    if (Below(4) == 0) step.set_output_dtype(v1::DTYPE_FP16);
    queries_ = Random(open_.rows() * kHeads * step.query_length() * layer.head_dim(), step.dtype());
    request.set_q(BytesOf(queries_, step.dtype()));
  }

  // Sends the step with something wrong; it must be refused, and change nothing.
  void Spoil(v1::SessionRequest request) {
    v1::SessionStep& step = *request.mutable_step();
    StatusCode expected = StatusCode::INVALID_ARGUMENT;
    switch (Below(6)) {
      case 0:
        step.set_step(next_ + 1 + static_cast<std::uint64_t>(Below(3)));
        expected = StatusCode::FAILED_PRECONDITION;
        break;
      case 1:
        step.clear_expected_lengths();
        step.add_expected_lengths(1000);
        expected = StatusCode::FAILED_PRECONDITION;
        break;
      case 2:
        request.set_k(request.k() + "x");
        break;
      case 3:
        step.set_key_length(201);
        step.clear_key_lengths();
        expected = StatusCode::OUT_OF_RANGE;
        break;
      case 4:
        request.set_q(request.q() + "x");
        break;
      default:
        step.add_reorder(-1);
    }
    const v1::SessionStepResult& result = stream_->Ask(request, /*sent=*/true);
    EXPECT_EQ(result.code(), expected) << result.message();
    EXPECT_FALSE(result.detail().field().empty());
  }

  // Compares the answer with ComputeAttention's over the same tokens.
  void Check(const v1::SessionRequest& request) {
    const v1::SessionStep& step = request.step();
    const v1::SessionReply& reply = stream_->reply();
    const v1::SessionStepResult& result = reply.result();
    ASSERT_EQ(result.code(), 0) << result.message() << "\n" << step.DebugString();
    EXPECT_EQ(result.step(), step.step());
    const std::vector<Tokens>& tokens = state_.tokens[static_cast<std::size_t>(step.layer())];
    ASSERT_EQ(result.lengths_size(), static_cast<int>(tokens.size()));
    for (int s = 0; s < result.lengths_size(); ++s) {
      EXPECT_EQ(result.lengths(s), static_cast<std::int64_t>(tokens[static_cast<std::size_t>(s)].size()));
    }
    if (step.query_length() == 0) {
      EXPECT_TRUE(reply.output().empty());
      return;
    }
    v1::ComputeAttentionResponse expected;
    const grpc::Status status = server_.Compute(WholeCall(step), &expected);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(result.dtype(), expected.dtype());
    EXPECT_TRUE(reply.output() == expected.output()) << step.DebugString();
    EXPECT_TRUE(reply.log_sum_exp() == expected.log_sum_exp()) << step.DebugString();
  }

  v1::ComputeAttentionRequest WholeCall(const v1::SessionStep& step) {
    const v1::SessionLayer& layer = LayerOf(step);
    const std::vector<Tokens>& tokens = state_.tokens[static_cast<std::size_t>(step.layer())];
    const std::int64_t heads = KvHeads(layer), dim = layer.head_dim(), value_dim = ValueDim(layer);
    v1::ComputeAttentionRequest call;
    std::size_t longest = 1;
    for (const Tokens& kept : tokens) longest = std::max(longest, kept.size());
    call.set_batch(open_.rows());
    call.set_heads(kHeads);
    call.set_kv_heads(heads);
    call.set_query_length(step.query_length());
    call.set_key_length(static_cast<std::int64_t>(longest));
    call.set_head_dim(dim);
    call.set_value_head_dim(value_dim);
    // What is kept in another type than what is sent is widened exactly.
    call.set_dtype(step.dtype() == open_.dtype() ? step.dtype() : v1::DTYPE_FP32);
    call.set_output_dtype(step.output_dtype() == v1::DTYPE_UNSPECIFIED ? step.dtype() : step.output_dtype());
    call.set_layout(step.layout());
    call.set_return_log_sum_exp(step.return_log_sum_exp());
    if (layer.has_scale()) call.set_scale(layer.scale());
    *call.mutable_query_lengths() = step.query_lengths();
    std::vector<float> k(static_cast<std::size_t>(open_.rows() * heads * call.key_length() * dim));
    std::vector<float> v(static_cast<std::size_t>(open_.rows() * heads * call.key_length() * value_dim));
    for (std::int64_t row = 0; row < open_.rows(); ++row) {
      const auto at = static_cast<std::size_t>(row);
      const std::size_t s = IsSelf(layer) ? at : static_cast<std::size_t>(state_.row_sources[at]);
      const auto length = static_cast<std::int64_t>(tokens[s].size());
      call.add_key_lengths(length);
      call.add_query_offsets(
          length - (step.query_lengths().empty() ? step.query_length() : step.query_lengths(static_cast<int>(row))));
      for (std::int64_t r = 0; r < length; ++r) {
        const Token& token = tokens[s][static_cast<std::size_t>(r)];
        for (std::int64_t h = 0; h < heads; ++h) {
          std::copy_n(
              token.k.begin() + h * dim, dim,
              k.begin() + static_cast<std::ptrdiff_t>(At(step.layout(), heads, call.key_length(), dim, row, h, r)));
          std::copy_n(token.v.begin() + h * value_dim, value_dim,
                      v.begin() + static_cast<std::ptrdiff_t>(
                                      At(step.layout(), heads, call.key_length(), value_dim, row, h, r)));
        }
      }
    }
    if (IsSelf(layer)) {
      call.set_model(kModel);
      call.set_table("decoder");
      call.set_mask(v1::MASK_CAUSAL);
      for (const std::int64_t start : state_.key_starts) {
        call.add_key_starts(std::min<std::int64_t>(start, call.key_length()));
      }
    } else {
      call.set_bias(v1::BIAS_NONE);
      call.set_mask(v1::MASK_NONE);
      if (state_.key_bits_length > 0) call.set_key_bits(BitsOf(call.key_length()));
    }
    call.set_q(BytesOf(queries_, call.dtype()));
    call.set_k(BytesOf(k, call.dtype()));
    call.set_v(BytesOf(v, call.dtype()));
    return call;
  }

  std::string BitsOf(std::int64_t key_length) const {
    const std::int64_t bytes = (key_length + 7) / 8, given = (state_.key_bits_length + 7) / 8;
    std::string bits(static_cast<std::size_t>(open_.rows() * bytes), '\0');
    for (std::int64_t row = 0; row < open_.rows(); ++row) {
      const std::int64_t source = state_.row_sources[static_cast<std::size_t>(row)];
      for (std::int64_t j = 0; j < key_length; ++j) {
        const bool is_true = j >= state_.key_bits_length ||
                             ((state_.key_bits[static_cast<std::size_t>(source * given + j / 8)] >> (j % 8)) & 1) != 0;
        if (is_true) bits[static_cast<std::size_t>(row * bytes + j / 8)] |= static_cast<char>(1 << (j % 8));
      }
    }
    return bits;
  }

  SessionServer& server_;
  const v1::SessionOpen open_;
  std::mt19937 random_;
  std::unique_ptr<Stream> stream_;
  State state_;
  std::vector<float> queries_;
  std::uint64_t next_ = 1;
};

Twin::Twin(SessionServer& server, Door door, const v1::SessionOpen& open, unsigned seed)
    : impl_(std::make_unique<Impl>(server, door, open, seed)) {}

Twin::~Twin() = default;

Stream& Twin::stream() { return impl_->stream(); }

void Twin::TakeStep() { impl_->TakeStep(); }

}  // namespace attnd::e2e
