// The masks of a call and calls without bias, by every way to the server: raw gRPC against the formula and
// kernel::Reference, the client library bit for bit against raw gRPC.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "attnd/client.h"
#include "e2e_support.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "reference_check.h"
#include "temp_folder.h"

namespace attnd::e2e {
namespace {

using Request = v1::ComputeAttentionRequest;
using Response = v1::ComputeAttentionResponse;

constexpr Shape kShape{.batch = 3, .query_length = 5, .key_length = 19, .head_dim = 4};

// What a request may have of masks; every set of these is tried.
enum Part : unsigned {
  kNoBias = 1,
  kCausal = 2,
  kQueryOffsets = 4,
  kQueryLengths = 8,
  kKeyStarts = 16,
  kKeyLengths = 32,
  kKeyBits = 64,
  kWindow = 128,
  kPrefix = 256,  // with kCausal
  kKeyBias = 512,
  kAll = 1023,
};

// Of any batch and lengths; one sequence is left without a key, one without a query.
Request WithParts(unsigned parts, const Shape& shape = kShape) {
  Request request = ValidRequest(shape);
  request.set_return_log_sum_exp(true);
  request.set_mask((parts & kCausal) != 0 ? v1::MASK_CAUSAL : v1::MASK_NONE);
  if ((parts & kNoBias) != 0) {
    request.set_bias(v1::BIAS_NONE);
    request.clear_model();
  }
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    if ((parts & kQueryOffsets) != 0) request.add_query_offsets((b * 7) % (shape.key_length + 2) - 1);
    if ((parts & kQueryLengths) != 0) request.add_query_lengths(b == 1 ? 0 : shape.query_length - b % 2);
    if ((parts & kKeyStarts) != 0) request.add_key_starts((b * 3) % 5);
    if ((parts & kKeyLengths) != 0) request.add_key_lengths(b == 2 ? 0 : shape.key_length - b);
    if ((parts & kPrefix) != 0 && (parts & kCausal) != 0) request.add_prefix_lengths((b * 11 + 6) % shape.key_length);
  }
  if ((parts & kWindow) != 0) {
    request.set_window_left(6);
    request.set_window_right(2);
  }
  if ((parts & kKeyBias) != 0) {
    for (std::int64_t i = 0; i < kHeads * shape.key_length; ++i) {
      request.add_key_bias(0.25F * static_cast<float>(i * 7 % 11 - 5));
    }
  }
  if ((parts & kKeyBits) != 0) {
    // The unused bits of the last byte are set: they mean nothing.
    const auto bytes = static_cast<std::size_t>(shape.batch * ((shape.key_length + 7) / 8));
    for (std::size_t i = 0; i < bytes; ++i) request.mutable_key_bits()->push_back(static_cast<char>((37 * i) | 0xc1));
  }
  return request;
}

// Whether query row i of sequence b sees key j, as attention.proto says it.
bool Sees(const Request& r, int b, std::int64_t i, std::int64_t j) {
  const std::int64_t first = r.query_offsets().empty() ? r.key_length() - r.query_length() : r.query_offsets(b);
  const bool in_prefix = !r.prefix_lengths().empty() && j < r.prefix_lengths(b);
  if (r.mask() == v1::MASK_CAUSAL && j > first + i && !in_prefix) return false;
  if (r.has_window_left() && j < first + i - r.window_left()) return false;
  if (r.has_window_right() && j > first + i + r.window_right()) return false;
  if (!r.key_starts().empty() && j < r.key_starts(b)) return false;
  if (!r.key_lengths().empty() && j >= r.key_lengths(b)) return false;
  if (!r.query_lengths().empty() && i >= r.query_lengths(b)) return false;
  if (r.key_bits().empty()) return true;
  const std::int64_t row = (r.key_length() + 7) / 8;
  return (r.key_bits()[static_cast<std::size_t>(b * row + j / 8)] >> (j % 8) & 1) != 0;
}

// softmax(q.k) . v of a request without bias.
std::vector<double> Formula(const Request& r) {
  const std::vector<float> q = test::FloatsOf(r.q()), k = test::FloatsOf(r.k()), v = test::FloatsOf(r.v());
  const std::int64_t dim = r.head_dim();
  std::vector<double> output(q.size(), 0);
  for (std::int64_t row = 0; row < r.batch() * r.heads() * r.query_length(); ++row) {
    const std::int64_t head = row / r.query_length(), i = row % r.query_length();
    const auto b = static_cast<int>(head / r.heads());
    std::vector<double> weights(static_cast<std::size_t>(r.key_length()), 0);
    double sum = 0;
    for (std::int64_t j = 0; j < r.key_length(); ++j) {
      if (!Sees(r, b, i, j)) continue;
      const std::int64_t bias = head % r.heads() * r.key_length() + j;
      double logit = r.key_bias().empty() ? 0 : static_cast<double>(r.key_bias(static_cast<int>(bias)));
      for (std::int64_t d = 0; d < dim; ++d) {
        logit += static_cast<double>(q[static_cast<std::size_t>(row * dim + d)]) *
                 static_cast<double>(k[static_cast<std::size_t>((head * r.key_length() + j) * dim + d)]);
      }
      sum += weights[static_cast<std::size_t>(j)] = std::exp(logit);
    }
    for (std::int64_t j = 0; sum > 0 && j < r.key_length(); ++j) {
      for (std::int64_t d = 0; d < dim; ++d) {
        output[static_cast<std::size_t>(row * dim + d)] +=
            weights[static_cast<std::size_t>(j)] / sum *
            static_cast<double>(v[static_cast<std::size_t>((head * r.key_length() + j) * dim + d)]);
      }
    }
  }
  return output;
}

// The same as the client library has it; a view of the message's bytes.
ComputeRequest ViewOf(const Request& m) {
  ComputeRequest request;
  request.bias = m.bias() == v1::BIAS_NONE ? Bias::kNone : Bias::kOfTable;
  request.model = m.model();
  request.q = {m.q().data(), DType::kFp32, {m.batch(), m.heads(), m.query_length(), m.head_dim()}};
  request.k = {m.k().data(), DType::kFp32, {m.batch(), m.heads(), m.key_length(), m.head_dim()}};
  request.v = {m.v().data(), DType::kFp32, {m.batch(), m.heads(), m.key_length(), m.head_dim()}};
  request.mask = m.mask() == v1::MASK_CAUSAL ? Mask::kCausal : Mask::kNone;
  request.query_offsets = {m.query_offsets().begin(), m.query_offsets().end()};
  request.query_lengths = {m.query_lengths().begin(), m.query_lengths().end()};
  request.key_starts = {m.key_starts().begin(), m.key_starts().end()};
  request.key_lengths = {m.key_lengths().begin(), m.key_lengths().end()};
  request.key_bits = {m.key_bits().begin(), m.key_bits().end()};
  if (m.has_window_left()) request.window_left = m.window_left();
  if (m.has_window_right()) request.window_right = m.window_right();
  request.prefix_lengths = {m.prefix_lengths().begin(), m.prefix_lengths().end()};
  request.key_bias = {m.key_bias().begin(), m.key_bias().end()};
  request.return_log_sum_exp = true;
  return request;
}

class MasksTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempFolder;
    server::Options options = TestOptions();
    options.listen.push_back("unix:" + folder_->path() + "/s");
    options.shared_memory = options.local_calls = true;
    server_ = new TestServer(options);
  }
  static void TearDownTestSuite() {
    delete server_;
    delete folder_;
  }

  static Client OverUnix(bool local_calls) {
    ClientOptions options;
    options.local_calls = local_calls;
    return *Client::Create("unix:" + folder_->path() + "/s", options);
  }

  static Response Answer(const Request& request) {
    Response response;
    const grpc::Status status = server_->Compute(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  static void ExpectSame(const absl::StatusOr<ComputeReply>& reply, const Response& expected) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    std::string output(reply->output.size_bytes(), '\0');
    reply->output.CopyTo(output.data());
    EXPECT_EQ(output, expected.output());
    EXPECT_EQ(reply->log_sum_exp, test::FloatsOf(expected.log_sum_exp()));
    EXPECT_EQ(reply->version, expected.version());
    EXPECT_EQ(reply->content_hash, expected.content_hash());
  }

  static test::TempFolder* folder_;
  static TestServer* server_;
};

test::TempFolder* MasksTest::folder_ = nullptr;
TestServer* MasksTest::server_ = nullptr;

TEST_F(MasksTest, EverySetOfThemIsTheFormula) {
  for (unsigned parts = 0; parts <= kAll; ++parts) {
    SCOPED_TRACE(parts);
    const Request request = WithParts(parts);
    const Response response = Answer(request);
    ExpectMatchesReference(request, response);
    EXPECT_EQ(response.version() == 0, (parts & kNoBias) != 0);
    EXPECT_EQ(response.content_hash().empty(), (parts & kNoBias) != 0);
    if ((parts & kNoBias) == 0) continue;
    const std::vector<float> got = test::FloatsOf(response.output());
    const std::vector<double> expected = Formula(request);
    ASSERT_EQ(got.size(), expected.size());
    // Logits of some 10 are wrong by 10 x 2^-24 at most, and so are the weights.
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5) << "output element " << i;
  }
}

TEST_F(MasksTest, EachMakesADifference) {
  for (const unsigned part :
       {kNoBias, kCausal, kQueryOffsets, kQueryLengths, kKeyStarts, kKeyLengths, kKeyBits, kWindow, kKeyBias}) {
    // Where queries stand matters with a bias, or a causal mask.
    EXPECT_NE(Answer(WithParts(part)).output(), Answer(WithParts(0)).output()) << part;
  }
  EXPECT_NE(Answer(WithParts(kCausal | kPrefix)).output(), Answer(WithParts(kCausal)).output());
}

TEST_F(MasksTest, WithoutBiasNoModelNeedHaveTheHeads) {
  Request request = WithParts(kNoBias);
  request.clear_mask();  // none
  request.set_heads(1);
  request.set_batch(kShape.batch * kHeads);
  const Response response = Answer(request);
  EXPECT_EQ(response.output(), Answer(WithParts(kNoBias)).output());
}

TEST_F(MasksTest, MaskedKeysHaveNoInfluence) {
  for (const unsigned parts :
       {unsigned{kKeyStarts}, unsigned{kKeyLengths}, unsigned{kKeyBits}, unsigned{kWindow}, unsigned{kAll}}) {
    const Request request = WithParts(parts | kCausal | kNoBias);
    const Response expected = Answer(request);
    Request spoilt = request;
    const std::size_t key_bytes = static_cast<std::size_t>(kShape.head_dim) * sizeof(float);
    for (std::int64_t row = 0; row < kShape.batch * kHeads * kShape.key_length; ++row) {
      const auto b = static_cast<int>(row / kShape.key_length / kHeads);
      bool seen = false;
      for (std::int64_t i = 0; i < kShape.query_length; ++i) seen |= Sees(request, b, i, row % kShape.key_length);
      if (seen) continue;
      const std::vector<float> nan(static_cast<std::size_t>(kShape.head_dim), std::nanf(""));
      std::memcpy(spoilt.mutable_k()->data() + static_cast<std::size_t>(row) * key_bytes, nan.data(), key_bytes);
      std::memcpy(spoilt.mutable_v()->data() + static_cast<std::size_t>(row) * key_bytes, nan.data(), key_bytes);
    }
    ASSERT_NE(spoilt.k(), request.k());
    EXPECT_EQ(Answer(spoilt).output(), expected.output()) << parts;
  }
}

TEST_F(MasksTest, EveryWayGivesTheSameBits) {
  Client local = OverUnix(true), shared = OverUnix(false), tcp = *Client::Create(server_->address());
  const test::LocalCaller caller(folder_->path() + "/s.shm");
  ASSERT_EQ(caller.Greet().code(), 0);
  for (unsigned parts = 0; parts <= kAll; parts += 3) {  // 0 and kAll among them
    SCOPED_TRACE(parts);
    const Request request = WithParts(parts);
    const Response expected = Answer(request);
    ExpectSame(tcp.Compute(ViewOf(request)), expected);
    ExpectSame(tcp.ComputeFuture(ViewOf(request)).get(), expected);
    ExpectSame(shared.Compute(ViewOf(request)), expected);
    const auto by_local = local.Compute(ViewOf(request));
    ExpectSame(by_local, expected);
    EXPECT_EQ(by_local->transport, Transport::kLocal);
    EXPECT_EQ(caller.Call(request).result().output(), expected.output());
  }
}

// Large enough to travel in shared memory, and by TCP in pieces: of whole sequences, and of some heads of one.
TEST_F(MasksTest, LargeCallsAreTheSameInPiecesAndInSharedMemory) {
  Client local = OverUnix(true), shared = OverUnix(false), tcp = *Client::Create(server_->address());
  const Shape kShapes[] = {{.batch = 12, .query_length = 100, .key_length = 331, .head_dim = 64},
                           {.batch = 2, .query_length = 700, .key_length = 1021, .head_dim = 64},
                           {.batch = 1, .query_length = 700, .key_length = 1501, .head_dim = 64}};
  for (const Shape& shape : kShapes) {
    for (const unsigned parts : {kAll & ~unsigned{kNoBias}, unsigned{kAll}, unsigned{kNoBias | kKeyBits}}) {
      SCOPED_TRACE(parts);
      const Request request = WithParts(parts, shape);
      const Response expected = Answer(request);
      if (shape.batch == 12) ExpectMatchesReference(request, expected);  // which takes its time
      ExpectSame(tcp.Compute(ViewOf(request)), expected);
      ExpectSame(tcp.ComputeFuture(ViewOf(request)).get(), expected);
      const auto by_shared = shared.Compute(ViewOf(request));
      ExpectSame(by_shared, expected);
      EXPECT_EQ(by_shared->transport, Transport::kSharedMemory);
      const auto by_local = local.Compute(ViewOf(request));
      ExpectSame(by_local, expected);
      EXPECT_EQ(by_local->transport, Transport::kLocal);
    }
  }
}

// A datagram has room for some 64 KB of key bits: such a call goes by gRPC, and the next one locally again.
TEST_F(MasksTest, ACallWhoseKeyBitsFillADatagramGoesByGrpc) {
  Client local = OverUnix(true);
  const Request request =
      WithParts(kNoBias | kKeyBits, {.batch = 1, .query_length = 1, .key_length = 600000, .head_dim = 1});
  ASSERT_GT(request.key_bits().size(), 70000U);
  const Response expected = Answer(request);
  const auto reply = local.Compute(ViewOf(request));
  ExpectSame(reply, expected);
  EXPECT_EQ(reply->transport, Transport::kSharedMemory);
  EXPECT_EQ(local.Compute(ViewOf(WithParts(kAll)))->transport, Transport::kLocal);
}

// They count among the fields beside the tensors, whose bytes are bounded.
TEST_F(MasksTest, KeyBitsBeyondTheHeadersBytesAreRefused) {
  Request request = WithParts(kNoBias);
  request.set_key_bits(std::string((1 << 20) + 1, '\xff'));
  Response response;
  const grpc::Status status = server_->Compute(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(),
            "request: expected at most 1048576 bytes beside q, k and v (max_header_bytes), got more");
}

}  // namespace
}  // namespace attnd::e2e
