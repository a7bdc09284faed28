// A session over a stream in the test's hands: the time limits it sets, the numbers it sends, and after which answers
// it goes on.
#include "client/src/session.h"

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/error_detail.h"
#include "client/src/session_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::client {
namespace {

using testing::ElementsAre;

constexpr std::int64_t kDim = 4, kRows = 2;

// Answers with what it is told, in order, and notes what it is asked.
class FakeStream : public SessionStream {
 public:
  Transport transport() const override { return Transport::kLocal; }
  const absl::Status& ended() const override { return ended_; }
  void SetDeadline(absl::Time deadline) override { deadlines.push_back(deadline); }
  absl::Status SendOpening(const SessionRequest& request) override {
    opened_models.push_back(request.model);
    return send;
  }
  absl::Status SendStep(const StepRequest&, const StepSizes&, std::uint64_t number) override {
    if (!send.ok()) return send;
    numbers.push_back(number);
    return absl::OkStatus();
  }
  absl::StatusOr<SessionAnswer> Receive() override {
    if (answers.empty()) {
      ADD_FAILURE() << "nothing more arrives";
      return absl::InternalError("nothing more arrives");
    }
    absl::StatusOr<SessionAnswer> answer = std::move(answers.front());
    answers.pop_front();
    return answer;
  }
  void End(const absl::Status& status) override {
    ended_ = status;
    ++ends;
  }
  absl::Status Close() override {
    ++closes;
    ended_ = absl::FailedPreconditionError("the session is closed");
    return absl::OkStatus();
  }

  absl::Status send, ended_;
  std::deque<absl::StatusOr<SessionAnswer>> answers;
  std::vector<absl::Time> deadlines;
  std::vector<std::uint64_t> numbers;
  std::vector<std::string> opened_models;
  int ends = 0, closes = 0;
};

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    SessionLayer layer;
    layer.heads = 1;
    layer.head_dim = kDim;
    layer.bias = Bias::kNone;
    request_.layers = {layer, layer};
    request_.model = "m";
    step_.q = {values_, DType::kFp32, {1, 1, kRows, kDim}};
    step_.return_log_sum_exp = true;
  }

  std::unique_ptr<Session> Open(absl::Time deadline = absl::InfiniteFuture()) {
    SessionAnswer opened;
    opened.opened.emplace().version = 3;
    stream_->answers.emplace_back(std::move(opened));
    absl::StatusOr<std::unique_ptr<Session>> session = OpenSession(stream_, request_, deadline);
    EXPECT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->facts().version, 3U);
    EXPECT_EQ((*session)->facts().transport, Transport::kLocal);
    return *std::move(session);
  }
  // A right answer to step `number`, of `bytes` and `rows` values.
  static SessionAnswer AnswerTo(std::uint64_t number, std::size_t bytes = kRows * kDim * 4, std::size_t rows = kRows,
                                DType dtype = DType::kFp32) {
    SessionAnswer answer;
    answer.step = number;
    const std::string output(bytes, 'o');
    answer.reply.output = *CopyOutput(dtype, output.data(), bytes);
    answer.reply.log_sum_exp.assign(rows, 1.5F);
    return answer;
  }

  float values_[kRows * kDim] = {};
  SessionRequest request_;
  StepRequest step_;
  const std::shared_ptr<FakeStream> stream_ = std::make_shared<FakeStream>();
};

TEST_F(SessionTest, StepsAreNumberedByTheirSuccesses) {
  const std::unique_ptr<Session> session = Open();
  for (std::uint64_t number = 1; number <= 3; ++number) {
    SessionAnswer refused;
    refused.step = number;
    refused.status = absl::FailedPreconditionError("other lengths");
    stream_->answers.emplace_back(refused);
    EXPECT_EQ(session->Step(step_).status(), refused.status);
    stream_->answers.emplace_back(AnswerTo(number));
    const absl::StatusOr<StepReply> reply = session->Step(step_);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->output.sizes(), step_.q.sizes);
    EXPECT_EQ(static_cast<const char*>(reply->output.data())[0], 'o');
    EXPECT_THAT(reply->log_sum_exp, ElementsAre(1.5F, 1.5F));
  }
  EXPECT_THAT(stream_->numbers, ElementsAre(1, 1, 2, 2, 3, 3));
  EXPECT_EQ(stream_->ends, 0);
}

TEST_F(SessionTest, AnAnswerToAnotherStepEndsIt) {
  for (const std::optional<std::uint64_t> number : {std::optional<std::uint64_t>(1), std::optional<std::uint64_t>(3),
                                                    std::optional<std::uint64_t>(0), std::optional<std::uint64_t>()}) {
    *stream_ = FakeStream();
    const std::unique_ptr<Session> session = Open();
    stream_->answers.emplace_back(AnswerTo(1));
    ASSERT_TRUE(session->Step(step_).ok());
    SessionAnswer wrong = AnswerTo(0);
    wrong.step = number;
    stream_->answers.emplace_back(std::move(wrong));
    const absl::Status status = session->Step(step_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(stream_->ends, 1);
    EXPECT_EQ(session->Step(step_).status(), status) << "for good";
    EXPECT_EQ(stream_->numbers.size(), 2U);
  }
}

// One that ends the stream itself, and one that does not.
TEST_F(SessionTest, AnyErrorOfTheStreamEndsIt) {
  std::unique_ptr<Session> session = Open();
  stream_->answers.emplace_back(absl::InternalError("malformed"));
  EXPECT_EQ(session->Step(step_).status(), absl::InternalError("malformed"));
  EXPECT_EQ(stream_->ends, 1);
  EXPECT_EQ(session->Step(step_).status(), absl::InternalError("malformed"));
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(stream_->closes, 0);

  *stream_ = FakeStream();
  session = Open();
  stream_->answers.emplace_back(absl::UnavailableError("lost"));
  stream_->ended_ = absl::OkStatus();
  EXPECT_EQ(session->Step(step_).status(), absl::UnavailableError("lost"));
  EXPECT_EQ(session->Step(step_).status(), absl::UnavailableError("lost"));
}

TEST_F(SessionTest, AStepThatWasNotSentChangesNothing) {
  const std::unique_ptr<Session> session = Open();
  stream_->send = absl::ResourceExhaustedError("too large");
  EXPECT_EQ(session->Step(step_).status(), stream_->send);
  stream_->send = absl::OkStatus();
  EXPECT_EQ(stream_->ends, 0);
  stream_->answers.emplace_back(AnswerTo(1));
  EXPECT_TRUE(session->Step(step_).ok());
  EXPECT_THAT(stream_->numbers, ElementsAre(1));
}

TEST_F(SessionTest, EachWaitHasItsLimitAndNoneIsLeft) {
  const absl::Time opening = absl::Now() + absl::Minutes(3);
  const std::unique_ptr<Session> session = Open(opening);
  EXPECT_THAT(stream_->deadlines, ElementsAre(opening, absl::InfiniteFuture()));
  constexpr absl::Duration kGrace = absl::Seconds(5);
  struct Case {
    absl::Duration timeout, limit;
  };
  for (const Case& c : {Case{absl::Minutes(1), absl::Minutes(1) + kGrace}, Case{absl::ZeroDuration(), kGrace},
                        Case{-absl::Minutes(1), kGrace}}) {
    for (const bool succeeds : {false, true}) {
      stream_->deadlines.clear();
      SessionAnswer answer = AnswerTo(stream_->numbers.empty() ? 1 : stream_->numbers.back() + (succeeds ? 0 : 1));
      if (!succeeds) answer.status = absl::OutOfRangeError("full");
      stream_->answers.emplace_back(std::move(answer));
      step_.timeout = c.timeout;
      const absl::Time before = absl::Now();
      EXPECT_EQ(session->Step(step_).ok(), succeeds);
      ASSERT_EQ(stream_->deadlines.size(), 2U);
      EXPECT_GE(stream_->deadlines[0], before + c.limit);
      EXPECT_LE(stream_->deadlines[0], absl::Now() + c.limit);
      EXPECT_EQ(stream_->deadlines[1], absl::InfiniteFuture());
    }
  }
  step_.timeout = absl::InfiniteDuration();
  stream_->deadlines.clear();
  stream_->answers.emplace_back(AnswerTo(stream_->numbers.back() + 1));
  EXPECT_TRUE(session->Step(step_).ok());
  EXPECT_THAT(stream_->deadlines, ElementsAre(absl::InfiniteFuture(), absl::InfiniteFuture()));
  const absl::Time before = absl::Now();
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(stream_->closes, 1);
  EXPECT_GE(stream_->deadlines.back(), before + kGrace);
  EXPECT_LE(stream_->deadlines.back(), absl::Now() + kGrace);
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(stream_->closes, 1);
}

TEST_F(SessionTest, NoticesOfTheServersStopAreNoAnswers) {
  const std::unique_ptr<Session> session = Open();
  EXPECT_EQ(session->going_away(), std::nullopt);
  for (const absl::Duration left : {absl::Seconds(9), absl::Seconds(4)}) {
    SessionAnswer notice;
    notice.going_away = left;
    stream_->answers.emplace_back(std::move(notice));
  }
  stream_->answers.emplace_back(AnswerTo(1));
  EXPECT_TRUE(session->Step(step_).ok());
  EXPECT_EQ(session->going_away(), absl::Seconds(4));
  EXPECT_EQ(stream_->ends, 0);
}

TEST_F(SessionTest, TheLastLayerAndOneMore) {
  const std::unique_ptr<Session> session = Open();
  struct Case {
    std::int64_t layer;
    bool there;
  };
  std::uint64_t number = 1;
  for (const Case& c : {Case{-1, false}, Case{0, true}, Case{1, true}, Case{2, false}, Case{1 << 20, false}}) {
    step_.layer = c.layer;
    if (c.there) stream_->answers.emplace_back(AnswerTo(number++));
    const absl::Status status = session->Step(step_).status();
    EXPECT_EQ(status.ok(), c.there) << c.layer;
    if (c.there) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.layer;
    EXPECT_EQ(GetErrorDetail(status)->field, "layer");
  }
  EXPECT_EQ(stream_->numbers.size(), 2U);
}

TEST_F(SessionTest, ResultsOfAnyOtherSizeOrTypeAreNoAnswer) {
  constexpr std::size_t kBytes = kRows * kDim * 4;
  struct Case {
    std::size_t bytes, rows;
    DType dtype;
  };
  for (const Case& c :
       {Case{kBytes - 4, kRows, DType::kFp32}, Case{kBytes + 4, kRows, DType::kFp32}, Case{0, kRows, DType::kFp32},
        Case{kBytes, kRows - 1, DType::kFp32}, Case{kBytes, kRows + 1, DType::kFp32}, Case{kBytes, 0, DType::kFp32},
        Case{kBytes, kRows, DType::kFp16}}) {
    *stream_ = FakeStream();
    const std::unique_ptr<Session> session = Open();
    stream_->answers.emplace_back(AnswerTo(1, c.bytes, c.rows, c.dtype));
    EXPECT_EQ(session->Step(step_).status().code(), absl::StatusCode::kInternal) << c.bytes << " " << c.rows;
  }
  // Without a log-sum-exp asked for, none may come.
  *stream_ = FakeStream();
  const std::unique_ptr<Session> session = Open();
  step_.return_log_sum_exp = false;
  stream_->answers.emplace_back(AnswerTo(1));
  EXPECT_EQ(session->Step(step_).status().code(), absl::StatusCode::kInternal);
}

TEST_F(SessionTest, AnOpeningThatFailsIsItsError) {
  stream_->send = absl::UnavailableError("lost");
  EXPECT_EQ(OpenSession(stream_, request_, absl::InfiniteFuture()).status(), stream_->send);
  *stream_ = FakeStream();
  stream_->answers.emplace_back(absl::ResourceExhaustedError("no room"));
  EXPECT_EQ(OpenSession(stream_, request_, absl::InfiniteFuture()).status(), absl::ResourceExhaustedError("no room"));
  *stream_ = FakeStream();
  stream_->answers.emplace_back(AnswerTo(1));
  EXPECT_EQ(OpenSession(stream_, request_, absl::InfiniteFuture()).status().code(), absl::StatusCode::kInternal);
}

// --- sizes and messages

TEST(StepSizesTest, TheLargestMessageAndOneByteMore) {
  SessionLayer layer;
  layer.head_dim = 1;
  const char byte = 0;
  const auto view = [&](std::int64_t tokens) { return TensorView{&byte, DType::kFp16, {1, 1, tokens, 1}}; };
  struct Case {
    const char* field;
    TensorView StepRequest::*tensor;
  };
  for (const Case& c : {Case{"q", &StepRequest::q}, Case{"k", &StepRequest::k}, Case{"v", &StepRequest::v}}) {
    StepRequest step;
    step.*c.tensor = view(kMaxMessageBytes / 2 / (c.tensor == &StepRequest::q ? 2 : 1));
    EXPECT_TRUE(SizesOf(step, layer).ok()) << c.field << SizesOf(step, layer).status();
    step.*c.tensor = view(kMaxMessageBytes / 2 + 1);
    EXPECT_EQ(GetErrorDetail(SizesOf(step, layer).status())->field, c.field);
    step.*c.tensor = view(std::int64_t{1} << 62);
    EXPECT_EQ(GetErrorDetail(SizesOf(step, layer).status())->field, c.field);
  }
}

TEST(EncodeStepTest, WhatJustFitsAndAByteMore) {
  SessionLayer layer;
  layer.head_dim = 8;
  const std::vector<char> bytes(4096);
  StepRequest step;
  step.q = {bytes.data(), DType::kFp32, {1, 1, 2, 8}};
  step.k = {bytes.data(), DType::kFp32, {1, 1, 5, 8}};
  step.v = {bytes.data(), DType::kFp32, {1, 1, 5, 8}};
  const StepSizes sizes = *SizesOf(step, layer);
  const auto whole = static_cast<std::int64_t>(EncodeStep(step, sizes, 1, 1 << 20)->Length());
  EXPECT_TRUE(EncodeStep(step, sizes, 1, whole).ok());
  const absl::Status one_less = EncodeStep(step, sizes, 1, whole - 1).status();
  EXPECT_EQ(one_less.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetail(one_less)->field, "v");
  EXPECT_EQ(GetErrorDetail(EncodeStep(step, sizes, 1, whole - 160 - 8).status())->field, "k");
  EXPECT_EQ(GetErrorDetail(EncodeStep(step, sizes, 1, 1).status())->field, "key_bits");
}

}  // namespace
}  // namespace attnd::client
