#include "server/probes/open_streams.h"

#include <atomic>
#include <deque>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::server {
namespace {

// Counts what is done to it.
class FakeStream final : public OpenStream {
 public:
  void End() override { ++ended; }
  void Cancel() override { ++cancelled; }

  std::atomic<int> ended{0};
  std::atomic<int> cancelled{0};
};

constexpr absl::Duration kLong = absl::Hours(24);

TEST(OpenStreamsTest, WithoutStreamsTheEndIsAtOnce) {
  OpenStreams streams;
  EXPECT_TRUE(test::Ends([&] { streams.EndAll(kLong); }));
  FakeStream one;
  OpenStreams emptied;
  emptied.Add(&one);
  emptied.Remove(&one);
  EXPECT_TRUE(test::Ends([&] { emptied.EndAll(kLong); }));
  EXPECT_EQ(one.ended, 0) << "it is over";
}

TEST(OpenStreamsTest, EachIsEndedOnceAndTheLastOneIsWaitedFor) {
  OpenStreams streams;
  std::deque<FakeStream> all(3);
  for (FakeStream& stream : all) streams.Add(&stream);
  std::atomic<bool> over{false};
  std::thread end([&] {
    streams.EndAll(kLong);
    over = true;
  });
  for (FakeStream& stream : all) EXPECT_TRUE(test::Becomes([&] { return stream.ended == 1; }));
  streams.Remove(&all[1]);
  streams.Remove(&all[0]);
  EXPECT_FALSE(over) << "one is left";
  streams.Remove(&all[2]);
  EXPECT_TRUE(test::Becomes([&] { return over.load(); })) << "none is left";
  for (FakeStream& stream : all) EXPECT_EQ(stream.ended, 1);
  for (FakeStream& stream : all) EXPECT_EQ(stream.cancelled, 0);
  if (!over) streams.Remove(&all[2]);
  end.join();
}

TEST(OpenStreamsTest, WhatIsLeftAfterThePatienceIsCancelled) {
  constexpr absl::Duration kPatience = absl::Milliseconds(30);
  OpenStreams streams;
  std::deque<FakeStream> all(3);
  for (FakeStream& stream : all) streams.Add(&stream);
  streams.Remove(&all[0]);
  const absl::Time begun = absl::Now();
  ASSERT_TRUE(test::Ends([&] { streams.EndAll(kPatience); }));
  EXPECT_GE(absl::Now() - begun, kPatience - absl::Milliseconds(1));
  for (const auto& [stream, times] : {std::pair<FakeStream*, int>{&all[0], 0}, {&all[1], 1}, {&all[2], 1}}) {
    EXPECT_EQ(stream->ended, times);
    EXPECT_EQ(stream->cancelled, times);
  }
}

TEST(OpenStreamsTest, WhatComesAfterTheEndIsEndedAtOnce) {
  OpenStreams streams;
  FakeStream early, late;
  streams.Add(&early);
  EXPECT_EQ(early.ended, 0);
  ASSERT_TRUE(test::Ends([&] { streams.EndAll(absl::ZeroDuration()); }));
  EXPECT_EQ(early.ended, 1);
  streams.Add(&late);
  EXPECT_EQ(late.ended, 1);
  EXPECT_EQ(late.cancelled, 0);
  EXPECT_EQ(early.ended, 1);
  streams.Remove(&early);
  streams.Remove(&late);
  EXPECT_TRUE(test::Ends([&] { streams.EndAll(kLong); })) << "those that came late are counted out too";
}

// Streams that begin while the server stops: each is ended, by its Add or by the stop.
TEST(OpenStreamsTest, ComingDuringTheEnd) {
  for (int round = 0; round < 100; ++round) {
    OpenStreams streams;
    std::deque<FakeStream> all(20);
    std::thread comes([&] {
      for (FakeStream& stream : all) streams.Add(&stream);
    });
    streams.EndAll(absl::ZeroDuration());
    comes.join();
    for (FakeStream& stream : all) EXPECT_EQ(stream.ended, 1);
  }
}

}  // namespace
}  // namespace attnd::server
