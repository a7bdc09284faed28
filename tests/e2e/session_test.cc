// Sessions against plain lists of tokens that are sent whole to ComputeAttention: the same bits, whatever happens.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/v1/session.grpc.pb.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tensor/convert.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;
using testing::HasSubstr;
using testing::StartsWith;

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

// A session's stream.
class Stream {
 public:
  explicit Stream(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::SessionService::NewStub(channel)), stream_(stub_->Attend(&context_)) {}
  Stream(const std::shared_ptr<grpc::Channel>& channel, const v1::SessionOpen& open) : Stream(channel) {
    v1::SessionRequest request;
    *request.mutable_open() = open;
    stream_->Write(request);
    opened_ = stream_->Read(&reply_) && reply_.has_opened();
  }
  ~Stream() {
    if (ended_) return;
    context_.TryCancel();
    static_cast<void>(stream_->Finish());
  }

  bool opened() const { return opened_; }
  const v1::SessionReply& reply() const { return reply_; }
  bool Write(const v1::SessionRequest& request) { return stream_->Write(request); }
  bool Read() { return stream_->Read(&reply_); }
  // The answer to a step, which is kept in reply().
  const v1::SessionStepResult& Ask(const v1::SessionRequest& request) {
    EXPECT_TRUE(Write(request));
    EXPECT_TRUE(Read());
    EXPECT_TRUE(reply_.has_result()) << reply_.DebugString();
    return reply_.result();
  }
  grpc::Status HalfClose() {
    stream_->WritesDone();
    return Finish();
  }
  grpc::Status Finish() {
    ended_ = true;
    while (stream_->Read(&reply_)) continue;
    return stream_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::SessionService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> stream_;
  v1::SessionReply reply_;
  bool opened_ = false;
  bool ended_ = false;
};

v1::SessionLayer Layer(v1::SessionLayerKind kind, std::int64_t head_dim, std::int64_t value_head_dim,
                       std::int64_t kv_heads = 0) {
  v1::SessionLayer layer;
  layer.set_kind(kind);
  layer.set_heads(kHeads);
  layer.set_kv_heads(kv_heads);
  layer.set_head_dim(head_dim);
  layer.set_value_head_dim(value_head_dim);
  if (kind == v1::SESSION_LAYER_KIND_SELF) layer.set_table("decoder");
  return layer;
}

v1::SessionOpen OpenOf(std::int64_t rows, std::int64_t sources, v1::Dtype dtype) {
  v1::SessionOpen open;
  open.set_model(kModel);
  open.set_rows(rows);
  open.set_dtype(dtype);
  open.set_max_tokens(200);
  *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_SELF, 16, 0);
  *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_SELF, 5, 3, 1);
  open.mutable_layers(1)->set_scale(0.5F);
  if (sources > 0) {
    open.set_sources(sources);
    open.set_max_source_tokens(150);
    *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_CROSS, 8, 16);
  }
  return open;
}

struct Token {
  std::vector<float> k, v;  // [kv_heads, dim], rounded to the session's dtype
};
using Tokens = std::vector<Token>;

// What a session is to be, and random steps of both.
class Twin {
 public:
  Twin(TestServer& server, const v1::SessionOpen& open, unsigned seed)
      : server_(server), open_(open), random_(seed), stream_(server.channel(), open) {
    EXPECT_TRUE(stream_.opened());
    EXPECT_GT(stream_.reply().opened().reserved_bytes(), 0);
    for (const v1::SessionLayer& layer : open.layers()) {
      const bool self = layer.kind() == v1::SESSION_LAYER_KIND_SELF;
      state_.tokens.emplace_back(static_cast<std::size_t>(self ? open.rows() : open.sources()));
    }
    for (std::int64_t row = 0; row < open.rows(); ++row) {
      state_.row_sources.push_back(open.sources() == 0 ? 0 : row / (open.rows() / open.sources()));
      state_.key_starts.push_back(0);
    }
  }

  Stream& stream() { return stream_; }

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
    if (fate == 1) {
      v1::SessionRequest cancel;
      cancel.mutable_cancel()->set_step(next_);
      ASSERT_TRUE(stream_.Write(request));
      ASSERT_TRUE(stream_.Write(cancel));
      ASSERT_TRUE(stream_.Read());
      if (stream_.reply().result().code() == StatusCode::CANCELLED) {
        state_ = before;
        return;
      }
    } else {
      stream_.Ask(request);
    }
    Check(request);
    ++next_;
    if (fate == 2) {  // once more, as after a lost answer
      stream_.Ask(request);
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
    const v1::SessionStepResult& result = stream_.Ask(request);
    EXPECT_EQ(result.code(), expected) << result.message();
    EXPECT_FALSE(result.detail().field().empty());
  }

  // Compares the answer with ComputeAttention's over the same tokens.
  void Check(const v1::SessionRequest& request) {
    const v1::SessionStep& step = request.step();
    const v1::SessionReply& reply = stream_.reply();
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

  TestServer& server_;
  const v1::SessionOpen open_;
  std::mt19937 random_;
  Stream stream_;
  State state_;
  std::vector<float> queries_;
  std::uint64_t next_ = 1;
};

TEST(SessionTest, GivesTheBitsOfWholeCalls) {
  TestServer server;
  for (unsigned seed = 0; seed < 6; ++seed) {
    std::vector<std::unique_ptr<Twin>> twins;
    const v1::Dtype dtypes[] = {v1::DTYPE_FP32, v1::DTYPE_FP16, v1::DTYPE_BF16};
    for (unsigned i = 0; i < 3; ++i) {
      twins.push_back(std::make_unique<Twin>(server, OpenOf(4, i, dtypes[(seed + i) % 3]), 10 * seed + i));
    }
    std::mt19937 random(seed);
    for (int step = 0; step < 120; ++step) {
      twins[random() % 3]->TakeStep();
      if (testing::Test::HasFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
    for (const std::unique_ptr<Twin>& twin : twins) EXPECT_TRUE(twin->stream().HalfClose().ok());
    twins.clear();
    EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
    EXPECT_EQ(server.server().calls_in_flight(), 0);
  }
}

// One step of layer 0: a token for each row, and its queries.
v1::SessionRequest TokenStep(std::uint64_t number, std::int64_t rows, std::int64_t tokens = 1) {
  v1::SessionRequest request;
  v1::SessionStep& step = *request.mutable_step();
  step.set_step(number);
  step.set_dtype(v1::DTYPE_FP32);
  step.set_key_length(tokens);
  step.set_query_length(tokens);
  const std::int64_t count = rows * kHeads * tokens * 16;
  request.set_q(RandomFloats(count, 1));
  request.set_k(RandomFloats(count, 2));
  request.set_v(RandomFloats(count, 3));
  return request;
}

TEST(SessionTest, WhatIsWrongWithAnOpeningIsSaid) {
  TestServer server;
  struct Case {
    const char* field;
    StatusCode code;
    void (*spoil)(v1::SessionOpen& open);
  };
  const Case cases[] = {
      {"open.rows", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.set_rows(0); }},
      {"open.rows", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.set_rows(1 << 20); }},
      {"open.sources", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.set_sources(0); }},
      {"open.sources", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.set_sources(3); }},
      {"open.row_sources", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.add_row_sources(0); }},
      {"open.row_sources[3]", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) {
         for (const int source : {0, 1, 0, 2}) o.add_row_sources(source);
       }},
      {"open.layers", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.clear_layers(), o.set_sources(0); }},
      {"open.layers[1].kind", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(1)->clear_kind(); }},
      {"open.model", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) {
         for (v1::SessionLayer& layer : *o.mutable_layers()) layer.clear_table(), layer.set_bias(v1::BIAS_NONE);
       }},
      {"open.layers[0].kind", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) {
         for (v1::SessionLayer& layer : *o.mutable_layers()) layer.clear_kind();
       }},
      {"open.layers[0].heads", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(0)->set_heads(3); }},
      {"open.layers[2].kv_heads", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(2)->set_kv_heads(3); }},
      {"open.layers[0].head_dim", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(0)->set_head_dim(0); }},
      {"open.layers[0].scale", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(0)->set_scale(std::numeric_limits<float>::infinity()); }},
      {"open.layers[2].table", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.mutable_layers(2)->set_table("decoder"); }},
      {"open.layers[0].table", StatusCode::NOT_FOUND,
       [](v1::SessionOpen& o) { o.mutable_layers(0)->set_table("nonsense"); }},
      {"open.model", StatusCode::NOT_FOUND, [](v1::SessionOpen& o) { o.set_model("nobody"); }},
      {"open.version", StatusCode::NOT_FOUND, [](v1::SessionOpen& o) { o.set_version(99); }},
      {"open.dtype", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.clear_dtype(); }},
      {"open.max_tokens", StatusCode::INVALID_ARGUMENT, [](v1::SessionOpen& o) { o.set_max_tokens(0); }},
      {"open.max_source_tokens", StatusCode::INVALID_ARGUMENT,
       [](v1::SessionOpen& o) { o.set_max_source_tokens(std::int64_t{1} << 40); }},
      {"open", StatusCode::RESOURCE_EXHAUSTED, [](v1::SessionOpen& o) { o.set_max_tokens(INT32_MAX); }},
      {"open.layers", StatusCode::RESOURCE_EXHAUSTED,
       [](v1::SessionOpen& o) {
         o.set_rows(1 << 16);
         o.set_max_tokens(INT32_MAX);
         for (int i = 0; i < 1000; ++i) *o.add_layers() = Layer(v1::SESSION_LAYER_KIND_SELF, 4096, 4096);
       }},
  };
  for (const Case& c : cases) {
    v1::SessionOpen open = OpenOf(4, 2, v1::DTYPE_FP32);
    c.spoil(open);
    Stream stream(server.channel(), open);
    EXPECT_FALSE(stream.opened()) << c.field;
    if (stream.opened()) continue;
    const grpc::Status status = stream.Finish();
    EXPECT_EQ(status.error_code(), c.code) << c.field << ": " << status.error_message();
    EXPECT_EQ(DetailOf(status).field(), c.field) << status.error_message();
  }
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
}

TEST(SessionTest, MessagesOutOfOrderEndTheStream) {
  TestServer server;
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  {
    Stream stream(server.channel());
    stream.Write(TokenStep(1, 1));
    const grpc::Status status = stream.Finish();
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), StartsWith("kind: expected open, in the session's first message"));
  }
  {
    Stream stream(server.channel(), open);
    v1::SessionRequest again;
    *again.mutable_open() = open;
    stream.Write(again);
    EXPECT_EQ(stream.Finish().error_code(), StatusCode::INVALID_ARGUMENT);
  }
  {
    Stream stream(server.channel());
    EXPECT_EQ(stream.HalfClose().error_code(), StatusCode::INVALID_ARGUMENT);
  }
  {
    Stream stream(server.channel(), open);
    stream.Write(v1::SessionRequest());
    EXPECT_EQ(stream.Finish().error_code(), StatusCode::INVALID_ARGUMENT);
  }
}

TEST(SessionTest, QuietStepsAreNotAnswered) {
  TestServer server;
  Stream stream(server.channel(), OpenOf(2, 0, v1::DTYPE_FP32));
  v1::SessionRequest quiet = TokenStep(1, 2);
  quiet.mutable_step()->set_query_length(0);
  quiet.mutable_step()->set_quiet(true);
  quiet.clear_q();
  stream.Write(quiet);
  EXPECT_EQ(stream.Ask(TokenStep(2, 2)).lengths(1), 2);
  quiet.mutable_step()->set_step(9);
  EXPECT_EQ(stream.Ask(quiet).code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(stream.reply().result().message(), "step: expected 3, or 2 again, got 9");
}

TEST(SessionTest, AStepHasATimeOfItsOwn) {
  TestServer server;
  Stream stream(server.channel(), OpenOf(2, 0, v1::DTYPE_FP32));
  v1::SessionRequest step = TokenStep(1, 2);
  step.mutable_step()->mutable_timeout()->set_seconds(0);
  EXPECT_EQ(stream.Ask(step).code(), StatusCode::DEADLINE_EXCEEDED);
  step.mutable_step()->mutable_timeout()->set_seconds(-1);
  EXPECT_EQ(stream.Ask(step).code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(stream.reply().result().detail().field(), "timeout");
  step.mutable_step()->mutable_timeout()->set_seconds(60);
  EXPECT_EQ(stream.Ask(step).code(), 0);
  EXPECT_EQ(stream.reply().result().lengths(0), 1);
}

TEST(SessionTest, MemoryIsTakenAtTheOpening) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 64 << 20;
  options.peer_shares = false;
  TestServer server(options);
  v1::SessionOpen open = OpenOf(4, 0, v1::DTYPE_FP32);
  open.set_max_tokens(4000);
  std::vector<std::unique_ptr<Stream>> streams;
  std::int64_t reserved = 0;
  for (;;) {
    streams.push_back(std::make_unique<Stream>(server.channel(), open));
    if (!streams.back()->opened()) break;
    reserved += streams.back()->reply().opened().reserved_bytes();
    EXPECT_EQ(server.server().inflight_bytes(), reserved);
    ASSERT_LT(streams.size(), 100u);
  }
  EXPECT_GT(streams.size(), 2u);
  const grpc::Status status = streams.back()->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailOf(status).field(), "open");
  // Those that are open go on, and what one gives back another may have.
  EXPECT_EQ(streams.front()->Ask(TokenStep(1, 4)).code(), 0);
  streams[1]->Cancel();
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() < reserved; }));
  EXPECT_TRUE(Stream(server.channel(), open).opened());
}

// With shares, too: what sessions hold keeps none of their steps from what those need.
TEST(SessionTest, StepsDoNotWaitForMemoryThatSessionsHold) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 64 << 20;
  TestServer server(options);
  v1::SessionOpen open = OpenOf(4, 0, v1::DTYPE_FP32);
  open.set_max_tokens(4000);
  std::vector<std::unique_ptr<Stream>> streams;
  do {
    streams.push_back(std::make_unique<Stream>(server.channel(), open));
    ASSERT_LT(streams.size(), 100u);
  } while (streams.back()->opened());
  streams.pop_back();
  ASSERT_GE(streams.size(), 1u);
  for (const std::unique_ptr<Stream>& stream : streams) {
    EXPECT_EQ(stream->Ask(TokenStep(1, 4, 500)).code(), 0) << stream->reply().result().message();
  }
}

TEST(SessionTest, MessagesThatFindNoMemoryAreRefused) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 16 << 20;
  options.limits.max_request_bytes = 64 << 20;
  TestServer server(options);
  v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP16);
  open.set_max_tokens(20000);
  Stream stream(server.channel(), open);
  ASSERT_TRUE(stream.opened()) << stream.Finish().error_message();
  EXPECT_EQ(stream.Ask(TokenStep(1, 1, 18000)).code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(stream.Ask(TokenStep(1, 1)).code(), 0);
}

TEST(SessionTest, CancelsAreReadBehindAStepThatWaits) {
  TestServer server;
  v1::SessionOpen open = OpenOf(64, 0, v1::DTYPE_FP32);
  open.set_max_tokens(3000);
  Stream stream(server.channel(), open);
  stream.Write(TokenStep(1, 64, 1500));  // hundreds of milliseconds
  stream.Write(TokenStep(2, 64));
  v1::SessionRequest cancel;
  for (const std::uint64_t step : {2U, 1U}) {
    cancel.mutable_cancel()->set_step(step);
    stream.Write(cancel);
  }
  for (const std::uint64_t step : {1U, 2U}) {
    ASSERT_TRUE(stream.Read());
    EXPECT_EQ(stream.reply().result().step(), step);
    EXPECT_EQ(stream.reply().result().code(), StatusCode::CANCELLED);
  }
  EXPECT_EQ(stream.Ask(TokenStep(1, 64)).lengths(63), 1);
}

// Whoever has seen a session's end may have its memory.
TEST(SessionTest, MemoryIsFreeWhenTheEndIsSeen) {
  TestServer server;
  for (int i = 0; i < 50; ++i) {
    Stream stream(server.channel(), OpenOf(3, 1, v1::DTYPE_FP32));
    EXPECT_EQ(stream.Ask(TokenStep(1, 3)).code(), 0);
    EXPECT_TRUE(stream.HalfClose().ok());
    EXPECT_EQ(server.server().inflight_bytes(), 0);
    EXPECT_EQ(server.server().calls_in_flight(), 0);
  }
}

TEST(SessionTest, ThereAreSoManyAndNoMore) {
  server::Options options = TestOptions();
  options.max_sessions = 3;
  options.max_peer_sessions = 2;
  TestServer server(options);
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  Stream first(server.channel(), open);
  {
    Stream second(server.channel(), open);
    EXPECT_TRUE(second.opened());
    Stream third(server.channel(), open);
    EXPECT_FALSE(third.opened());
    const grpc::Status status = third.Finish();
    EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.error_message(), HasSubstr("--max_peer_sessions"));
  }
  EXPECT_TRUE(Becomes([&] { return Stream(server.channel(), open).opened(); }));
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
  EXPECT_GE(info.sessions().open(), 1);
}

TEST(SessionTest, IdleAndOldOnesAreEvicted) {
  server::Options options = TestOptions();
  options.session_idle = absl::Milliseconds(300);
  options.session_life = absl::Seconds(2);
  TestServer server(options);
  Stream idle(server.channel(), OpenOf(1, 0, v1::DTYPE_FP32));
  Stream old(server.channel(), OpenOf(1, 0, v1::DTYPE_FP32));
  std::uint64_t steps = 0;
  while (old.Write(TokenStep(steps + 1, 1)) && old.Read()) {
    ++steps;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_LT(steps, 200u);
  }
  const grpc::Status old_status = old.Finish(), idle_status = idle.Finish();
  EXPECT_EQ(old_status.error_code(), StatusCode::ABORTED);
  EXPECT_THAT(old_status.error_message(), HasSubstr("--session_life"));
  EXPECT_GT(steps, 20u);
  EXPECT_EQ(idle_status.error_code(), StatusCode::ABORTED);
  EXPECT_THAT(idle_status.error_message(), HasSubstr("--session_idle"));
  EXPECT_EQ(DetailOf(idle_status).field(), "session");
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
}

TEST(SessionTest, OperatorsSeeAndEvictThem) {
  TestServer server;
  const std::unique_ptr<v1::SessionService::Stub> stub = v1::SessionService::NewStub(server.channel());
  const auto list = [&] {
    grpc::ClientContext context;
    v1::ListSessionsResponse listed;
    EXPECT_TRUE(stub->ListSessions(&context, {}, &listed).ok());
    return listed;
  };
  EXPECT_EQ(list().sessions_size(), 0);
  Stream first(server.channel(), OpenOf(3, 1, v1::DTYPE_FP32)), second(server.channel(), OpenOf(1, 0, v1::DTYPE_FP32));
  EXPECT_EQ(first.Ask(TokenStep(1, 3)).code(), 0);
  EXPECT_EQ(first.Ask(TokenStep(5, 3)).code(), StatusCode::FAILED_PRECONDITION);
  const v1::ListSessionsResponse listed = list();
  ASSERT_EQ(listed.sessions_size(), 2);
  const v1::SessionInfo& info = listed.sessions(0);
  EXPECT_EQ(info.rows(), 3);
  EXPECT_EQ(info.sources(), 1);
  EXPECT_EQ(info.layers(), 3);
  EXPECT_EQ(info.model(), kModel);
  EXPECT_EQ(info.steps(), 1u);
  EXPECT_GT(info.reserved_bytes(), info.used_bytes());
  EXPECT_GT(info.used_bytes(), 0);
  EXPECT_THAT(info.peer(), StartsWith("ipv4:127.0.0.1"));
  EXPECT_EQ(listed.sessions(1).used_bytes(), 0);
  const auto evict = [&](std::uint64_t id) {
    grpc::ClientContext context;
    v1::EvictSessionRequest request;
    request.set_id(id);
    v1::EvictSessionResponse evicted;
    return stub->EvictSession(&context, request, &evicted);
  };
  EXPECT_TRUE(evict(info.id()).ok());
  const grpc::Status status = first.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::ABORTED);
  EXPECT_THAT(status.error_message(), HasSubstr("evicted"));
  EXPECT_EQ(evict(info.id()).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(second.Ask(TokenStep(1, 1)).code(), 0);
}

TEST(SessionTest, AStoppingServerSaysSoAndEndsThemAtItsDeadline) {
  server::Options options = TestOptions();
  options.drain = absl::Seconds(2);
  TestServer server(options);
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  Stream left(server.channel(), open), finished(server.channel(), open), unopened(server.channel());
  ASSERT_TRUE(Becomes([&] { return server.server().calls_in_flight() == 3; }));
  std::thread stop([&] { server.server().Stop(); });
  for (Stream* stream : {&left, &finished}) {
    ASSERT_TRUE(stream->Read());
    ASSERT_TRUE(stream->reply().has_going_away());
    EXPECT_EQ(stream->reply().going_away().time_left().seconds(), 2);
    EXPECT_EQ(stream->Ask(TokenStep(1, 1)).code(), 0);
  }
  EXPECT_EQ(unopened.Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(finished.HalfClose().ok());
  EXPECT_FALSE(left.Finish().ok());
  stop.join();
  EXPECT_EQ(server.server().inflight_bytes(), 0);
}

TEST(SessionTest, KeepsItsModelsVersion) {
  TestServer server;
  Stream stream(server.channel(), OpenOf(2, 0, v1::DTYPE_FP32));
  ASSERT_TRUE(stream.opened());
  EXPECT_EQ(stream.Ask(TokenStep(1, 2, 3)).code(), 0);
  const std::string before = stream.reply().output();
  v1::UnloadModelRequest unload;
  unload.set_name(kModel);
  grpc::ClientContext context;
  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(server.models().UnloadModel(&context, unload, &unloaded).ok());
  EXPECT_EQ(stream.Ask(TokenStep(1, 2, 3)).code(), 0);
  EXPECT_TRUE(stream.reply().output() == before);
  EXPECT_FALSE(Stream(server.channel(), OpenOf(2, 0, v1::DTYPE_FP32)).opened());
}

// However sessions end, nothing of them is left.
TEST(SessionTest, NothingIsLostHoweverTheyEnd) {
  TestServer server;
  const v1::SessionOpen open = OpenOf(3, 1, v1::DTYPE_BF16);
  for (int i = 0; i < 200; ++i) {
    const std::shared_ptr<grpc::Channel> channel = i % 4 == 3 ? NewChannel(server.address()) : server.channel();
    Stream stream(channel, open);
    ASSERT_TRUE(stream.opened());
    stream.Write(TokenStep(1, 3, 40));
    if (i % 2 == 0) stream.Read();
    if (i % 3 == 0) stream.Write(TokenStep(2, 3, 40));
    if (i % 4 == 0) {
      EXPECT_TRUE(stream.HalfClose().ok());
    }
    if (i % 4 == 1) stream.Cancel();
  }
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
  EXPECT_TRUE(Becomes([&] { return server.server().calls_in_flight() == 0; }));
}

}  // namespace
}  // namespace attnd::e2e
