#include "server/attention/stream_state.h"

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using Arrival = StreamState::Arrival;
using Step = StreamState::Step;

constexpr std::int64_t kWindow = 100000;

// A piece that counts `bytes` in the window.
StreamState::Piece Counting(std::uint64_t id, std::int64_t bytes) {
  return {id, 1000, bytes - 1000 - kPieceOverheadBytes};
}

// A stream that has begun to read.
class StreamStateTest : public testing::Test {
 protected:
  StreamStateTest() { EXPECT_TRUE(Next().read); }

  // The next step, which is done at once.
  Step Next() {
    const Step step = state_.Next();
    if (step.anything() && !step.finish) state_.Done();
    return step;
  }
  void ExpectNothingToDo() { EXPECT_FALSE(Next().anything()); }

  // A piece comes, and is computed at once.
  void Begin(std::uint64_t id, std::int64_t bytes) {
    ASSERT_EQ(state_.Arrived(Counting(id, bytes)), Arrival::kTaken);
    last_ = Next();
    ASSERT_EQ(last_.compute, id);
  }

  StreamState state_{kWindow};
  Step last_;
};

TEST_F(StreamStateTest, APieceIsComputedWhileTheNextIsRead) {
  Begin(7, 20000);
  EXPECT_TRUE(last_.read);
  EXPECT_EQ(state_.held_bytes(), 20000);
  ExpectNothingToDo();
  ASSERT_TRUE(state_.Computed(7, 9000));
  EXPECT_EQ(state_.held_bytes(), 9000);
  EXPECT_EQ(Next().write, 7U);
  EXPECT_EQ(state_.held_bytes(), 9000) << "until it is written";
  state_.Written(true);
  EXPECT_EQ(state_.held_bytes(), 0);
  EXPECT_FALSE(state_.busy());
  ExpectNothingToDo();
}

TEST_F(StreamStateTest, ResultsCountBeforeTheyExist) {
  Begin(1, 60000);
  ASSERT_TRUE(last_.read);
  ASSERT_EQ(state_.Arrived(Counting(2, 40001)), Arrival::kTaken);
  ExpectNothingToDo();
  EXPECT_TRUE(state_.busy());
  EXPECT_EQ(state_.waiting_bytes(), 1000);
  EXPECT_EQ(state_.held_bytes(), 60000);
  ASSERT_TRUE(state_.Computed(1, 59999));
  const Step step = Next();
  EXPECT_EQ(step.write, 1U);
  EXPECT_EQ(step.compute, 2U);
  EXPECT_FALSE(step.read) << "the window is full";
  EXPECT_EQ(state_.held_bytes(), kWindow);
  state_.Written(true);
  EXPECT_TRUE(Next().read);
}

TEST_F(StreamStateTest, AFullWindowIsReadAgainOnlyWhenAnAnswerIsWritten) {
  Begin(1, kWindow);
  EXPECT_FALSE(last_.read);
  ASSERT_TRUE(state_.Computed(1, kWindow));
  Step step = Next();
  EXPECT_EQ(step.write, 1U);
  EXPECT_FALSE(step.read);
  state_.Written(true);
  EXPECT_TRUE(Next().read);
}

TEST_F(StreamStateTest, APieceLargerThanTheWindowGoesAlone) {
  Begin(1, 10000);
  ASSERT_EQ(state_.Arrived(Counting(2, 3 * kWindow)), Arrival::kTaken);
  ExpectNothingToDo();
  ASSERT_TRUE(state_.Computed(1, 10000));
  EXPECT_EQ(Next().write, 1U);
  ExpectNothingToDo();
  state_.Written(true);
  const Step step = Next();
  EXPECT_EQ(step.compute, 2U);
  EXPECT_FALSE(step.read);
  EXPECT_EQ(state_.held_bytes(), 3 * kWindow);
}

TEST_F(StreamStateTest, AnswersAreWrittenOneAtATimeAsTheyAreDone) {
  Begin(1, 10000);
  Begin(2, 10000);
  Begin(3, 10000);
  ASSERT_TRUE(state_.Computed(3, 5000));
  EXPECT_EQ(Next().write, 3U);
  ASSERT_TRUE(state_.Computed(1, 5000));
  ASSERT_TRUE(state_.Computed(2, 5000));
  ExpectNothingToDo();
  state_.Written(true);
  EXPECT_EQ(Next().write, 1U);
  state_.Written(true);
  EXPECT_EQ(Next().write, 2U);
}

TEST_F(StreamStateTest, TheLastAnswerTakesTheEndAlong) {
  Begin(1, 10000);
  state_.AllRead();
  ExpectNothingToDo();
  ASSERT_TRUE(state_.Computed(1, 5000));
  const Step step = Next();
  EXPECT_EQ(step.write, 1U);
  EXPECT_TRUE(step.finish);
  EXPECT_TRUE(state_.failure().ok());
  ExpectNothingToDo();
}

TEST_F(StreamStateTest, AnEmptyStreamEnds) {
  state_.AllRead();
  EXPECT_TRUE(Next().finish);
  ExpectNothingToDo();
}

TEST_F(StreamStateTest, APieceThatWaitsIsComputedAfterTheLastRead) {
  Begin(1, 60000);
  ASSERT_EQ(state_.Arrived(Counting(2, 60000)), Arrival::kTaken);
  ExpectNothingToDo();
  ASSERT_TRUE(state_.Computed(1, 0));
  Step step = Next();
  EXPECT_EQ(step.write, 1U);
  EXPECT_EQ(step.compute, 2U);
  EXPECT_TRUE(step.read);
  state_.AllRead();
  state_.Written(true);
  ExpectNothingToDo();
  ASSERT_TRUE(state_.Computed(2, 10));
  step = Next();
  EXPECT_EQ(step.write, 2U);
  EXPECT_TRUE(step.finish);
}

TEST_F(StreamStateTest, AnIdIsInUseUntilItsAnswerIsBegun) {
  Begin(1, 10000);
  EXPECT_EQ(state_.Arrived(Counting(1, 10)), Arrival::kIdInUse);
  EXPECT_TRUE(Next().read);
  ASSERT_TRUE(state_.Computed(1, 10));
  EXPECT_EQ(Next().write, 1U);
  EXPECT_EQ(state_.Arrived(Counting(1, 10000)), Arrival::kTaken);
  EXPECT_EQ(Next().compute, 1U);
}

TEST_F(StreamStateTest, AFailureDropsWhatWaitsAndAwaitsWhatIsUnderWay) {
  Begin(1, 10000);
  Begin(2, 10000);
  Begin(3, 10000);
  ASSERT_TRUE(state_.Computed(1, 5000));
  ASSERT_TRUE(state_.Computed(2, 5000));
  EXPECT_EQ(Next().write, 1U);
  ASSERT_EQ(state_.Arrived(Counting(4, 2 * kWindow)), Arrival::kTaken);
  ExpectNothingToDo();
  state_.Fail(absl::AbortedError("first"));
  state_.Fail(absl::CancelledError("second"));
  const Step step = Next();
  EXPECT_TRUE(step.give_up);
  EXPECT_FALSE(step.read || step.finish || step.write.has_value() || step.compute.has_value());
  EXPECT_EQ(state_.waiting_bytes(), 0);
  ExpectNothingToDo();
  EXPECT_FALSE(state_.Computed(3, 5000)) << "nobody wants it";
  ExpectNothingToDo();
  state_.Written(false);
  EXPECT_TRUE(Next().finish);
  EXPECT_EQ(state_.failure(), absl::AbortedError("first"));
  EXPECT_EQ(state_.held_bytes(), 0);
}

// However a piece ends, it gives back what it counted: of many times the window, every one finds room.
TEST_F(StreamStateTest, AllThatIsCountedIsGivenBack) {
  for (std::uint64_t id = 1; id <= 60; ++id) {
    const std::int64_t bytes = kWindow / 4 * static_cast<std::int64_t>(1 + id % 4);
    Begin(id, bytes);
    EXPECT_EQ(state_.held_bytes(), bytes);
    const std::int64_t answer = static_cast<std::int64_t>(id % 3) * kWindow / 2;  // an error's is short
    ASSERT_TRUE(state_.Computed(id, answer));
    EXPECT_EQ(state_.held_bytes(), answer);
    EXPECT_EQ(Next().write, id);
    state_.Written(true);
    EXPECT_EQ(state_.held_bytes(), 0);
    Next();  // reads, if it has not
  }
  EXPECT_FALSE(state_.busy());
}

// At the window's last byte and one beyond it.
TEST_F(StreamStateTest, TheWindowIsFilledToItsLastByte) {
  for (const std::int64_t more : {0, 1}) {
    StreamState state(kWindow);
    ASSERT_TRUE(state.Next().read);
    state.Done();
    ASSERT_EQ(state.Arrived(Counting(1, 60000)), Arrival::kTaken);
    ASSERT_EQ(state.Next().compute, 1U);
    state.Done();
    ASSERT_EQ(state.Arrived({2, 20000, 20000 - kPieceOverheadBytes + more}), Arrival::kTaken);
    const Step step = state.Next();
    EXPECT_EQ(step.compute.has_value(), more == 0);
    EXPECT_FALSE(step.read) << "the window is full, or a piece waits";
    EXPECT_EQ(state.held_bytes(), more == 0 ? kWindow : 60000);
  }
}

// A write under way ends before its stream does, with the answers that wait dropped at once.
TEST_F(StreamStateTest, AFailureAwaitsTheWriteAndDropsTheOtherAnswers) {
  for (const bool written : {false, true}) {
    StreamState state(kWindow);
    ASSERT_TRUE(state.Next().read);
    state.Done();
    for (std::uint64_t id = 1; id <= 3; ++id) {
      ASSERT_EQ(state.Arrived(Counting(id, 10000)), Arrival::kTaken);
      ASSERT_EQ(state.Next().compute, id);
      state.Done();
    }
    for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(state.Computed(id, 5000));
    ASSERT_EQ(state.Next().write, 1U);
    state.Done();
    EXPECT_EQ(state.held_bytes(), 15000);
    state.ReadFailed(absl::AbortedError("lost"));
    const Step step = state.Next();
    EXPECT_TRUE(step.give_up);
    EXPECT_FALSE(step.finish || step.write.has_value());
    state.Done();
    EXPECT_EQ(state.held_bytes(), 5000) << "of the answer being written";
    EXPECT_FALSE(state.Next().anything()) << "it is being written still";
    state.Written(written);
    EXPECT_EQ(state.held_bytes(), 0);
    const Step last = state.Next();
    EXPECT_TRUE(last.finish);
    EXPECT_FALSE(last.write.has_value());
    EXPECT_EQ(state.failure(), absl::AbortedError("lost"));
  }
}

TEST_F(StreamStateTest, AFailureAwaitsTheRead) {
  state_.Fail(absl::CancelledError(""));
  EXPECT_TRUE(Next().give_up);
  ExpectNothingToDo();
  EXPECT_EQ(state_.Arrived(Counting(1, 10)), Arrival::kOver);
  EXPECT_TRUE(Next().finish);
}

TEST_F(StreamStateTest, WhatIsNoPieceFailsTheStream) {
  state_.ReadFailed(absl::InvalidArgumentError("no piece"));
  EXPECT_TRUE(Next().give_up);
  EXPECT_TRUE(Next().finish);
  EXPECT_EQ(state_.failure(), absl::InvalidArgumentError("no piece"));
}

TEST_F(StreamStateTest, AReaderWhoIsGoneFailsTheStream) {
  Begin(1, 10000);
  ASSERT_TRUE(state_.Computed(1, 5000));
  EXPECT_EQ(Next().write, 1U);
  state_.Written(false);
  EXPECT_TRUE(Next().give_up);
  state_.AllRead();
  EXPECT_TRUE(Next().finish);
  EXPECT_EQ(state_.failure().code(), absl::StatusCode::kCancelled);
}

TEST_F(StreamStateTest, AQuietStreamEndsWithoutAwaitingItsRead) {
  EXPECT_FALSE(state_.busy());
  state_.EndQuietly(absl::UnavailableError("stopping"));
  EXPECT_TRUE(Next().give_up);
  EXPECT_TRUE(Next().finish);
  EXPECT_EQ(state_.Arrived(Counting(1, 10)), Arrival::kOver);
  ExpectNothingToDo();
}

// Whoever does a step may use the stream until the step is done.
TEST_F(StreamStateTest, TheEndAwaitsEveryStep) {
  ASSERT_EQ(state_.Arrived(Counting(1, 10000)), Arrival::kTaken);
  const Step step = state_.Next();
  ASSERT_EQ(step.compute, 1U);
  ASSERT_TRUE(state_.Computed(1, 10));
  ASSERT_EQ(Next().write, 1U);
  state_.Written(true);
  state_.EndQuietly(absl::UnavailableError("stopping"));
  EXPECT_TRUE(Next().give_up);
  EXPECT_FALSE(Next().anything()) << "the first step has not begun its read yet";
  state_.Done();
  EXPECT_TRUE(Next().finish);
}

}  // namespace
}  // namespace attnd::server
