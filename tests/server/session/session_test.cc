// What a session's steps compute, and that one that fails changes nothing. session_limits_test.cc has their limits.
#include "server/session/session.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "raw_region.h"
#include "session/test_steps.h"

namespace attnd::server {
namespace {

using absl::StatusCode;
using testing::ElementsAre;

// All changes at once, and a fault that is seen only after them.
TEST(SessionTest, AStepThatFailsGivesBackAllThatItChanged) {
  struct Case {
    const char* what;
    void (*spoil)(v1::SessionRequest& request);
  };
  const Case cases[] = {
      {"expected", [](v1::SessionRequest& r) { r.mutable_step()->add_expected_lengths(99); }},
      {"room", [](v1::SessionRequest& r) { r.mutable_step()->set_key_length(kMostTokens + 1); }},
      {"k", [](v1::SessionRequest& r) { r.mutable_k()->push_back('x'); }},
      {"v", [](v1::SessionRequest& r) { r.mutable_v()->push_back('x'); }},
      {"q", [](v1::SessionRequest& r) { r.mutable_q()->push_back('x'); }},
      {"dtype", [](v1::SessionRequest& r) { r.mutable_step()->clear_dtype(); }},
      {"output", [](v1::SessionRequest& r) { r.mutable_step()->mutable_output_shared()->set_region("x"); }},
      {"computation", nullptr},
  };
  for (const int layer : {0, 1, 2}) {
    for (const Case& c : cases) {
      SCOPED_TRACE(absl::StrCat(c.what, " in layer ", layer));
      TestSteps session;
      Fill(session);
      const std::string before = session.State();
      v1::SessionRequest request = session.Step(60, 1, layer);  // into the next page
      v1::SessionStep& step = *request.mutable_step();
      for (const int row : {1, 1, 0, 2}) step.add_reorder(row);
      for (const int start : {5, 6, 7, 8}) step.add_key_starts(start);
      step.set_key_bits("\x01\x02");
      step.set_key_bits_length(3);
      if (c.spoil != nullptr) {
        c.spoil(request);
        EXPECT_FALSE(session.Begin(request).ok());
      } else {
        const absl::Status begun = session.Begin(request);
        EXPECT_TRUE(begun.ok()) << begun;
        session->End(false);
      }
      EXPECT_EQ(session.State(), before);
      if (c.spoil == nullptr) {
        session.MustTake(request);
        EXPECT_NE(session.State(), before) << "the control: it does change something";
      }
    }
  }
}

TEST(SessionTest, QueriesAreAtTheLastPositionsOfTheirRows) {
  TestSteps session;
  v1::SessionRequest request = session.Step(5, 3);
  for (const int length : {5, 3, 1, 0}) request.mutable_step()->add_key_lengths(length);
  for (const int length : {3, 2, 1, 0}) request.mutable_step()->add_query_lengths(length);
  for (const int start : {0, 1, 0, 4}) request.mutable_step()->add_key_starts(start);
  ASSERT_TRUE(session.Begin(request).ok());
  const kernel::Attention& a = session.attention->attention;
  const auto list = [](const std::int64_t* values) { return std::vector<std::int64_t>(values, values + kRows); };
  EXPECT_THAT(list(a.key_lengths), ElementsAre(5, 3, 1, 0));
  EXPECT_THAT(list(a.query_lengths), ElementsAre(3, 2, 1, 0));
  EXPECT_THAT(list(a.query_offsets), ElementsAre(2, 1, 0, 0));
  EXPECT_THAT(list(a.key_starts), ElementsAre(0, 1, 0, 4));
  EXPECT_EQ(a.key_length, 5);
  EXPECT_EQ(a.query_length, 3);
  EXPECT_EQ(a.mask, kernel::Mask::kCausal);
  EXPECT_EQ(a.key_bits, nullptr);
  session->End(true);
  // The same step again: nothing is appended.
  v1::SessionRequest again = request;
  ASSERT_TRUE(session.Begin(again).ok());
  EXPECT_THAT(list(session.attention->attention.key_lengths), ElementsAre(5, 3, 1, 0));
  session->End(true);
  v1::SessionStepResult result;
  session->Describe(result);
  EXPECT_THAT(result.lengths(), ElementsAre(5, 3, 1, 0));
  EXPECT_EQ(session->last_step(), 1U);
}

// A swap, which shows whether what is overwritten is read afterwards.
TEST(SessionTest, AReorderedRowTakesItsSourceItsStartAndItsTokensAlong) {
  TestSteps session;
  v1::SessionRequest first = session.Step(4, 0);
  for (const int length : {4, 3, 2, 1}) first.mutable_step()->add_key_lengths(length);
  for (const int start : {10, 11, 12, 13}) first.mutable_step()->add_key_starts(start);
  session.MustTake(first);
  v1::SessionRequest source = session.Step(9, 0, 1);
  for (const int length : {9, 8}) source.mutable_step()->add_key_lengths(length);
  session.MustTake(source);
  v1::SessionRequest swap = session.Step(0, 1);
  for (const int row : {3, 2, 1, 0}) swap.mutable_step()->add_reorder(row);
  ASSERT_TRUE(session.Begin(swap).ok());
  const auto list = [](const std::int64_t* values) { return std::vector<std::int64_t>(values, values + kRows); };
  EXPECT_THAT(list(session.attention->attention.key_starts), ElementsAre(13, 12, 11, 10));
  EXPECT_THAT(list(session.attention->attention.key_lengths), ElementsAre(1, 2, 3, 4));
  session->End(true);
  ASSERT_TRUE(session.Begin(session.Step(0, 1, 1)).ok());
  const kernel::Attention& cross = session.attention->attention;
  EXPECT_THAT(list(cross.key_lengths), ElementsAre(8, 8, 9, 9)) << "of their sources";
  EXPECT_EQ(cross.mask, kernel::Mask::kNone);
  EXPECT_EQ(cross.key_starts, nullptr);
  session->End(true);
}

// Each number of given bits against each number of tokens, about the ends of bytes.
TEST(SessionTest, KeyBitsAreThoseOfTheSourceAndOnesBeyondThem) {
  for (const std::int64_t tokens : {1, 7, 8, 9, 15, 16, 17, 24, 25}) {
    for (const std::int64_t given : {1, 7, 8, 9, 15, 16, 17, 24, 25}) {
      TestSteps session;
      session.MustTake(session.Step(tokens, 0, 1));
      v1::SessionRequest request = session.Step(0, 1, 1);
      const std::int64_t given_bytes = (given + 7) / 8;
      std::string bits;
      for (std::int64_t i = 0; i < given_bytes * kSources; ++i) bits.push_back(static_cast<char>(0x35 + 0x1d * i));
      request.mutable_step()->set_key_bits(bits);
      request.mutable_step()->set_key_bits_length(given);
      for (const int row : {0, 3, 1, 2}) request.mutable_step()->add_reorder(row);
      ASSERT_TRUE(session.Begin(request).ok());
      const kernel::Attention& a = session.attention->attention;
      for (std::int64_t row = 0; row < kRows; ++row) {
        const std::int64_t of_row[] = {0, 1, 0, 1};
        for (std::int64_t key = 0; key < tokens; ++key) {
          const auto byte = static_cast<unsigned char>(
              key < given ? bits[static_cast<std::size_t>(of_row[row] * given_bytes + key / 8)] : '\xff');
          const bool expected = ((byte >> (key % 8)) & 1) != 0;
          const std::byte got = a.key_bits[row * ((tokens + 7) / 8) + key / 8];
          ASSERT_EQ(((std::to_integer<int>(got) >> (key % 8)) & 1) != 0, expected)
              << tokens << " tokens, " << given << " bits, row " << row << ", key " << key;
        }
      }
      session->End(true);
    }
  }
}

TEST(SessionTest, AnAnswerIsUpToItsRoomAndNotAByteLarger) {
  const std::int64_t output = kRows * 2 * 3 * 8 * 4, log_sum_exp = kRows * 2 * 3 * 4;
  for (const bool both : {false, true}) {
    for (const std::int64_t room : {output + (both ? log_sum_exp : 0) - 1, output + (both ? log_sum_exp : 0)}) {
      TestSteps session(MixedOpen(), {}, room);
      v1::SessionRequest request = session.Step(3, 3);
      request.mutable_step()->set_return_log_sum_exp(both);
      const absl::Status taken = session.Take(request);
      EXPECT_EQ(taken.code(),
                room >= output + (both ? log_sum_exp : 0) ? StatusCode::kOk : StatusCode::kResourceExhausted);
      EXPECT_EQ(session->used_bytes() > 0, taken.ok());
      session->SetMaxSentBytes(room + 1);
      if (!taken.ok()) session.MustTake(request);
    }
  }
}

TEST(SessionTest, ComputesWhatItsLayerSays) {
  v1::SessionOpen open = MixedOpen();
  v1::SessionLayer& layer = *open.mutable_layers(2);
  layer.set_heads(6);
  layer.set_kv_heads(3);
  layer.set_value_head_dim(5);
  layer.set_scale(0.25F);
  TestSteps session(open);
  v1::SessionRequest request = session.Step(2, 3, 2);
  request.mutable_step()->set_return_log_sum_exp(true);
  request.mutable_step()->set_output_dtype(v1::DTYPE_BF16);
  ASSERT_TRUE(session.Begin(request).ok());
  const kernel::Attention& a = session.attention->attention;
  EXPECT_EQ(a.batch, kRows);
  EXPECT_EQ(a.heads, 6);
  EXPECT_EQ(a.kv_heads, 3);
  EXPECT_EQ(a.head_dim, 4);
  EXPECT_EQ(a.value_head_dim, 5);
  EXPECT_EQ(a.query_length, 3);
  EXPECT_EQ(a.key_length, 2);
  EXPECT_EQ(a.scale, 0.25F);
  EXPECT_EQ(session.attention->output_dtype, v1::DTYPE_BF16);
  EXPECT_EQ(session.attention->output_bytes, kRows * 6 * 3 * 5 * 2);
  EXPECT_EQ(session.attention->log_sum_exp_bytes, kRows * 6 * 3 * 4);
  session->End(true);
}

// Each tensor in a region of its own, which nothing else holds.
TEST(SessionTest, EachRegionIsHeldAsLongAsTheStepUsesIt) {
  constexpr std::int64_t kTensor = kRows * 2 * 3 * 8 * 4, kLogSumExp = kRows * 2 * 3 * 4;
  SharedMemory memory{SharedMemoryLimits{}};
  const auto share = [&](SharedMemory::Owner owner, std::int64_t size, v1::SharedTensor* tensor) {
    const auto bytes = static_cast<std::size_t>(size);
    const shm::UniqueFd fd = test::SealedMemfd(bytes);
    const absl::StatusOr<shm::Handle> handle = memory.Register(owner, "user", fd.get(), bytes);
    ASSERT_TRUE(handle.ok()) << handle.status();
    tensor->set_region(handle->data(), handle->size());
    tensor->set_offset(0);
  };
  TestSteps session(MixedOpen(), {}, 0, &memory);
  v1::SessionRequest request = session.Step(3, 3);
  v1::SessionStep& step = *request.mutable_step();
  step.set_return_log_sum_exp(true);
  for (std::string* tensor : {request.mutable_q(), request.mutable_k(), request.mutable_v()}) tensor->clear();
  share(1, kTensor, step.mutable_q_shared());
  share(2, kTensor, step.mutable_k_shared());
  share(3, kTensor, step.mutable_v_shared());
  share(4, kTensor, step.mutable_output_shared());
  share(5, kLogSumExp, step.mutable_log_sum_exp_shared());
  const std::int64_t all = memory.mapped_bytes();
  ASSERT_EQ(all, 4 * kTensor + kLogSumExp);
  // By a byte beyond its region, each; and one that is no longer there.
  for (const char* field : {"q_shared", "k_shared", "v_shared", "output_shared", "log_sum_exp_shared"}) {
    const auto* const descriptor = v1::SessionStep::descriptor()->FindFieldByName(field);
    for (const bool gone : {false, true}) {
      v1::SessionRequest spoiled = request;
      auto* const tensor = static_cast<v1::SharedTensor*>(
          spoiled.mutable_step()->GetReflection()->MutableMessage(spoiled.mutable_step(), descriptor));
      if (gone) {
        (*tensor->mutable_region())[3] ^= 1;
      } else {
        tensor->set_offset(4);
      }
      const absl::Status taken = session.Take(spoiled);
      EXPECT_EQ(taken.code(), gone ? StatusCode::kFailedPrecondition : StatusCode::kInvalidArgument) << field;
      EXPECT_EQ(FieldOf(taken), absl::StrCat(field, gone ? ".region" : ".offset"));
      EXPECT_EQ(session->used_bytes(), 0) << field;
      EXPECT_EQ(memory.mapped_bytes(), all) << field;
    }
  }
  ASSERT_TRUE(session.Begin(request).ok());
  EXPECT_EQ(session.attention->sent_output_bytes(), 0);
  EXPECT_EQ(session.attention->sent_log_sum_exp_bytes(), 0);
  // Their caller is gone: what is copied already goes, what is still used stays.
  std::int64_t held = all;
  for (const SharedMemory::Owner owner : {1u, 2u, 3u, 4u, 5u}) {
    memory.Drop(owner);
    if (owner == 2 || owner == 3) held -= kTensor;
    EXPECT_EQ(memory.mapped_bytes(), held) << owner;
  }
  session->End(true);
  session.attention.reset();
  EXPECT_EQ(memory.mapped_bytes(), 0);
}

TEST(SessionTest, CopiesAreEstimatedFromWhatIsAppended) {
  TestSteps session;
  EXPECT_EQ(session->BytesToCopy(session.Step(5, 0, 0).step()), 5 * kRows * 2 * (8 + 8) * 4);
  EXPECT_EQ(session->BytesToCopy(session.Step(5, 0, 1).step()), 5 * kSources * 2 * (8 + 8) * 4);
  EXPECT_EQ(session->BytesToCopy(session.Step(5, 0, 2).step()), 5 * kRows * 2 * (4 + 4) * 4);
  EXPECT_EQ(session->BytesToCopy(session.Step(0, 9, 0).step()), 0);
  for (const std::int64_t layer : {-1, 3}) {
    v1::SessionRequest request = session.Step(5, 0);
    request.mutable_step()->set_layer(layer);
    EXPECT_EQ(session->BytesToCopy(request.step()), 0);
  }
  v1::SessionRequest huge = session.Step(0, 0);
  huge.mutable_step()->set_key_length(std::numeric_limits<std::int64_t>::max());
  EXPECT_GT(session->BytesToCopy(huge.step()), std::int64_t{1} << 50);
  // Rows that share their last page are copied apart.
  session.MustTake(session.Step(1, 0));
  const std::int64_t apart = session->BytesToCopy(session.Step(1, 0).step());
  v1::SessionRequest fork = session.Step(0, 0);
  for (int row = 0; row < kRows; ++row) fork.mutable_step()->add_reorder(0);
  session.MustTake(fork);
  EXPECT_GT(session->BytesToCopy(session.Step(1, 0).step()), apart);
}

}  // namespace
}  // namespace attnd::server
