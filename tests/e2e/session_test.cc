// Sessions by both doors, against plain lists of tokens that are sent whole to ComputeAttention: the same bits,
// whatever happens.
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "session_support.h"
#include "session_twin.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;
using testing::HasSubstr;
using testing::StartsWith;

class SessionTest : public testing::TestWithParam<Door> {
 protected:
  static Door door() { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(, SessionTest, testing::Values(Door::kGrpc, Door::kLocal),
                         [](const auto& info) { return info.param == Door::kGrpc ? "Grpc" : "Local"; });

TEST_P(SessionTest, GivesTheBitsOfWholeCalls) {
  SessionServer server;
  for (unsigned seed = 0; seed < 6; ++seed) {
    std::vector<std::unique_ptr<Twin>> twins;
    const v1::Dtype dtypes[] = {v1::DTYPE_FP32, v1::DTYPE_FP16, v1::DTYPE_BF16};
    for (unsigned i = 0; i < 3; ++i) {
      v1::SessionOpen open = OpenOf(4, i, dtypes[(seed + i) % 3]);
      if (seed % 2 == 0) open.mutable_grace()->set_seconds(20);
      twins.push_back(std::make_unique<Twin>(server, door(), open, 10 * seed + i));
    }
    std::mt19937 random(seed);
    for (int step = 0; step < 120; ++step) {
      twins[random() % 3]->TakeStep();
      if (testing::Test::HasFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
    for (const std::unique_ptr<Twin>& twin : twins) EXPECT_TRUE(twin->stream().HalfClose().ok());
    twins.clear();
    EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
    EXPECT_TRUE(Becomes([&] { return server.server().calls_in_flight() == 0; }));
  }
}

TEST_P(SessionTest, WhatIsWrongWithAnOpeningIsSaid) {
  SessionServer server;
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
    Stream stream(server, door(), open);
    EXPECT_FALSE(stream.opened()) << c.field;
    if (stream.opened()) continue;
    const SessionEnd status = stream.Finish();
    EXPECT_EQ(status.code, c.code) << c.field << ": " << status.message;
    EXPECT_EQ(status.detail.field(), c.field) << status.message;
  }
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
}

TEST_P(SessionTest, MessagesOutOfOrderEndTheStream) {
  SessionServer server;
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  {
    Stream stream(server, door());
    stream.Write(TokenStep(1, 1));
    const SessionEnd status = stream.Finish();
    EXPECT_EQ(status.code, StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.message, StartsWith("kind: expected open or resume, in the session's first message"));
  }
  {
    Stream stream(server, door(), open);
    v1::SessionRequest again;
    *again.mutable_open() = open;
    stream.Write(again);
    EXPECT_EQ(stream.Finish().code, StatusCode::INVALID_ARGUMENT);
  }
  if (door() == Door::kGrpc) {
    Stream stream(server, door());
    EXPECT_EQ(stream.HalfClose().code, StatusCode::INVALID_ARGUMENT);
  }
  {
    Stream stream(server, door(), open);
    stream.Write(v1::SessionRequest());
    EXPECT_EQ(stream.Finish().code, StatusCode::INVALID_ARGUMENT);
  }
}

TEST_P(SessionTest, QuietStepsAreNotAnswered) {
  SessionServer server;
  Stream stream(server, door(), OpenOf(2, 0, v1::DTYPE_FP32));
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

TEST_P(SessionTest, AStepHasATimeOfItsOwn) {
  SessionServer server;
  Stream stream(server, door(), OpenOf(2, 0, v1::DTYPE_FP32));
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

TEST_P(SessionTest, MemoryIsTakenAtTheOpening) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 64 << 20;
  options.peer_shares = false;
  SessionServer server(options);
  v1::SessionOpen open = OpenOf(4, 0, v1::DTYPE_FP32);
  open.set_max_tokens(4000);
  std::vector<std::unique_ptr<Stream>> streams;
  std::int64_t reserved = 0;
  for (;;) {
    streams.push_back(std::make_unique<Stream>(server, door(), open));
    if (!streams.back()->opened()) break;
    reserved += streams.back()->reply().opened().reserved_bytes();
    EXPECT_EQ(server.server().inflight_bytes(), reserved);
    ASSERT_LT(streams.size(), 100u);
  }
  EXPECT_GT(streams.size(), 2u);
  const SessionEnd status = streams.back()->Finish();
  EXPECT_EQ(status.code, StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.detail.field(), "open");
  // Those that are open go on, and what one gives back another may have.
  EXPECT_EQ(streams.front()->Ask(TokenStep(1, 4)).code(), 0);
  streams[1]->Cancel();
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() < reserved; }));
  EXPECT_TRUE(Stream(server, door(), open).opened());
}

// With shares, too: what sessions hold keeps none of their steps from what those need.
TEST_P(SessionTest, StepsDoNotWaitForMemoryThatSessionsHold) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 64 << 20;
  SessionServer server(options);
  v1::SessionOpen open = OpenOf(4, 0, v1::DTYPE_FP32);
  open.set_max_tokens(4000);
  std::vector<std::unique_ptr<Stream>> streams;
  do {
    streams.push_back(std::make_unique<Stream>(server, door(), open));
    ASSERT_LT(streams.size(), 100u);
  } while (streams.back()->opened());
  streams.pop_back();
  ASSERT_GE(streams.size(), 1u);
  for (const std::unique_ptr<Stream>& stream : streams) {
    EXPECT_EQ(stream->Ask(TokenStep(1, 4, 500)).code(), 0) << stream->reply().result().message();
  }
}

TEST_P(SessionTest, MessagesThatFindNoMemoryAreRefused) {
  if (door() == Door::kLocal) GTEST_SKIP() << "there messages are datagrams";
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = 16 << 20;
  options.limits.max_request_bytes = 64 << 20;
  SessionServer server(options);
  v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP16);
  open.set_max_tokens(20000);
  Stream stream(server, door(), open);
  ASSERT_TRUE(stream.opened()) << stream.Finish().message;
  EXPECT_EQ(stream.Ask(TokenStep(1, 1, 18000)).code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(stream.Ask(TokenStep(1, 1)).code(), 0);
}

// What is long to copy is copied aside.
TEST_P(SessionTest, ALongAppendIsTheSameAsManyShortOnes) {
  SessionServer server;
  v1::SessionOpen open = OpenOf(8, 0, v1::DTYPE_BF16);
  open.set_max_tokens(2000);
  constexpr std::int64_t kTokens = 1800, kPiece = 100, kHeadDim = 16;
  const auto step = [](std::uint64_t number, std::int64_t tokens) {
    v1::SessionRequest request = TokenStep(number, 8, tokens);
    request.mutable_step()->set_layout(v1::LAYOUT_BATCH_SEQUENCE_HEAD_DIM);
    request.mutable_step()->set_query_length(1);
    request.set_q(RandomFloats(8 * kHeads * kHeadDim, 1));
    return request;
  };
  const v1::SessionRequest whole = step(1, kTokens);
  Stream once(server, door(), open), often(server, door(), open);
  ASSERT_EQ(once.Ask(whole).code(), 0) << once.reply().result().message();
  const std::size_t token = kHeads * kHeadDim * sizeof(float);
  for (std::int64_t begin = 0; begin < kTokens; begin += kPiece) {
    v1::SessionRequest piece = step(static_cast<std::uint64_t>(begin / kPiece + 1), kPiece);
    for (const auto& [from, to] :
         {std::pair{&whole.k(), piece.mutable_k()}, std::pair{&whole.v(), piece.mutable_v()}}) {
      to->clear();
      for (std::size_t row = 0; row < 8; ++row) {
        to->append(*from, (row * kTokens + static_cast<std::size_t>(begin)) * token, kPiece * token);
      }
    }
    ASSERT_EQ(often.Ask(piece).code(), 0) << often.reply().result().message();
  }
  EXPECT_EQ(once.reply().result().lengths(7), kTokens);
  EXPECT_EQ(often.reply().result().lengths(7), kTokens);
  EXPECT_TRUE(once.reply().output() == often.reply().output());
  // One that is too late before it has its turn changes nothing.
  v1::SessionRequest late = step(2, 150);
  late.mutable_step()->mutable_timeout()->set_nanos(1);
  EXPECT_EQ(once.Ask(late).code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(once.Ask(step(2, 1)).lengths(0), kTokens + 1);
}

TEST_P(SessionTest, CancelsAreReadBehindAStepThatWaits) {
  SessionServer server;
  v1::SessionOpen open = OpenOf(64, 0, v1::DTYPE_FP32);
  open.set_max_tokens(3000);
  Stream stream(server, door(), open);
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
TEST_P(SessionTest, MemoryIsFreeWhenTheEndIsSeen) {
  SessionServer server;
  for (int i = 0; i < 50; ++i) {
    Stream stream(server, door(), OpenOf(3, 1, v1::DTYPE_FP32));
    EXPECT_EQ(stream.Ask(TokenStep(1, 3)).code(), 0);
    EXPECT_TRUE(stream.HalfClose().ok());
    EXPECT_EQ(server.server().inflight_bytes(), 0);
    EXPECT_TRUE(Becomes([&] { return server.server().calls_in_flight() == 0; }));
  }
}

TEST_P(SessionTest, ThereAreSoManyAndNoMore) {
  server::Options options = TestOptions();
  options.max_sessions = 3;
  options.max_peer_sessions = 2;
  SessionServer server(options);
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  Stream first(server, door(), open);
  {
    Stream second(server, door(), open);
    EXPECT_TRUE(second.opened());
    Stream third(server, door(), open);
    EXPECT_FALSE(third.opened());
    const SessionEnd status = third.Finish();
    EXPECT_EQ(status.code, StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.message, HasSubstr("--max_peer_sessions"));
  }
  EXPECT_TRUE(Becomes([&] { return Stream(server, door(), open).opened(); }));
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
  EXPECT_GE(info.sessions().open(), 1);
}

TEST_P(SessionTest, IdleAndOldOnesAreEvicted) {
  server::Options options = TestOptions();
  options.session_idle = absl::Milliseconds(300);
  options.session_life = absl::Seconds(2);
  SessionServer server(options);
  Stream idle(server, door(), OpenOf(1, 0, v1::DTYPE_FP32));
  Stream old(server, door(), OpenOf(1, 0, v1::DTYPE_FP32));
  std::uint64_t steps = 0;
  while (old.Write(TokenStep(steps + 1, 1)) && old.Read()) {
    ++steps;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_LT(steps, 200u);
  }
  const SessionEnd old_status = old.Finish(), idle_status = idle.Finish();
  EXPECT_EQ(old_status.code, StatusCode::ABORTED);
  EXPECT_THAT(old_status.message, HasSubstr("--session_life"));
  EXPECT_GT(steps, 20u);
  EXPECT_EQ(idle_status.code, StatusCode::ABORTED);
  EXPECT_THAT(idle_status.message, HasSubstr("--session_idle"));
  EXPECT_EQ(idle_status.detail.field(), "session");
  EXPECT_TRUE(Becomes([&] { return server.server().inflight_bytes() == 0; }));
}

// Where one that opens finds no room, the one that has been idle for longest goes, once its lease is over.
TEST_P(SessionTest, ALeaseEndsWhereAnotherFindsNoRoom) {
  for (const bool by_number : {true, false}) {
    server::Options options = TestOptions();
    options.session_lease = absl::Milliseconds(400);
    if (by_number) {
      options.max_sessions = 3;
    } else {
      options.limits.max_inflight_bytes = 64 << 20;
      options.peer_shares = false;
    }
    SessionServer server(options);
    v1::SessionOpen open = OpenOf(4, 0, v1::DTYPE_FP32);
    if (!by_number) open.set_max_tokens(15000);
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < 3; ++i) {
      streams.push_back(std::make_unique<Stream>(server, door(), open));
      if (!streams.back()->opened()) streams.pop_back();
    }
    ASSERT_GE(streams.size(), 2U);
    {
      Stream early(server, door(), open);
      ASSERT_FALSE(early.opened());
      EXPECT_EQ(early.Finish().code, StatusCode::RESOURCE_EXHAUSTED);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    EXPECT_EQ(streams[0]->Ask(TokenStep(1, 4)).code(), 0);
    Stream late(server, door(), open);
    ASSERT_TRUE(late.opened());
    EXPECT_EQ(streams[0]->Ask(TokenStep(2, 4)).code(), 0) << "it was at work";
    const SessionEnd end = streams[1]->Finish();
    EXPECT_EQ(end.code, StatusCode::ABORTED);
    EXPECT_THAT(end.message, HasSubstr("--session_lease"));
    EXPECT_EQ(end.detail.field(), "session");
    if (streams.size() > 2) {
      EXPECT_EQ(streams[2]->Ask(TokenStep(1, 4)).code(), 0) << "one was enough";
    }
    v1::GetServerInfoResponse info;
    grpc::ClientContext context;
    ASSERT_TRUE(server.info().GetServerInfo(&context, {}, &info).ok());
    EXPECT_EQ(info.sessions().evicted(), 1);
  }
}

// Nobody is ended in vain.
TEST_P(SessionTest, ALeaseEndsNobodyWhereThatMakesNoRoom) {
  server::Options options = TestOptions();
  options.session_lease = absl::Milliseconds(200);
  options.max_peer_sessions = 2;
  options.limits.max_inflight_bytes = 64 << 20;
  options.peer_shares = false;
  SessionServer server(options);
  const Door other = door() == Door::kGrpc ? Door::kLocal : Door::kGrpc;
  const v1::SessionOpen small = OpenOf(1, 0, v1::DTYPE_FP32);
  Stream idle(server, other, small);
  ASSERT_TRUE(idle.opened());
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  // Too many of this peer, and that one is another's.
  v1::SessionOpen large = OpenOf(4, 0, v1::DTYPE_FP32);
  large.set_max_tokens(30000);  // some 35 MiB
  Stream first(server, door(), large), second(server, door(), small);
  ASSERT_TRUE(first.opened() && second.opened());
  {
    Stream third(server, door(), small);
    ASSERT_FALSE(third.opened());
    EXPECT_THAT(third.Finish().message, HasSubstr("--max_peer_sessions"));
  }
  EXPECT_TRUE(second.HalfClose().ok());
  // More memory than all that are idle would give back.
  {
    Stream third(server, door(), large);
    ASSERT_FALSE(third.opened());
    EXPECT_EQ(third.Finish().detail.field(), "open");
  }
  EXPECT_EQ(idle.Ask(TokenStep(1, 1)).code(), 0) << idle.reply().DebugString();
}

class LostSessionTest : public SessionTest {
 protected:
  LostSessionTest() { options_.session_grace = absl::Seconds(20); }

  void Start() { server_ = std::make_unique<SessionServer>(options_); }
  // A session with a step, which is kept for at most `grace`.
  std::unique_ptr<Stream> Open(absl::Duration grace = absl::Seconds(60)) {
    v1::SessionOpen open = OpenOf(2, 0, v1::DTYPE_FP32);
    open.mutable_grace()->set_seconds(absl::IDivDuration(grace, absl::Seconds(1), &grace));
    open.mutable_grace()->set_nanos(static_cast<std::int32_t>(absl::ToInt64Nanoseconds(grace)));
    auto stream = std::make_unique<Stream>(*server_, door(), open);
    EXPECT_EQ(stream->Ask(TokenStep(1, 2)).code(), 0);
    return stream;
  }
  std::int64_t InUse() const { return server_->server().inflight_bytes(); }
  void ExpectIsGone(const Stream& lost) {
    const std::unique_ptr<Stream> resumed = Stream::Resumed(*server_, door(), lost);
    ASSERT_FALSE(resumed->opened());
    const SessionEnd end = resumed->Finish();
    EXPECT_EQ(end.code, StatusCode::NOT_FOUND);
    EXPECT_EQ(end.detail.field(), "resume.token");
  }

  server::Options options_ = TestOptions();
  std::unique_ptr<SessionServer> server_;
};
INSTANTIATE_TEST_SUITE_P(, LostSessionTest, testing::Values(Door::kGrpc, Door::kLocal),
                         [](const auto& info) { return info.param == Door::kGrpc ? "Grpc" : "Local"; });

TEST_P(LostSessionTest, IsKeptForItsGraceAndNoLonger) {
  options_.session_grace = absl::Milliseconds(500);
  Start();
  const std::unique_ptr<Stream> lost = Open();
  EXPECT_EQ(lost->facts().resume_token().size(), 16U);
  EXPECT_EQ(lost->facts().grace_time().nanos(), 500'000'000) << "the server's, which is shorter";
  lost->Cancel();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_GT(InUse(), 0);
  {
    const std::unique_ptr<Stream> resumed = Stream::Resumed(*server_, door(), *lost);
    ASSERT_TRUE(resumed->opened());
    EXPECT_EQ(resumed->facts().last_step(), 1U);
    EXPECT_EQ(resumed->Ask(TokenStep(2, 2)).lengths(0), 2);
    resumed->Cancel();
  }
  EXPECT_TRUE(Becomes([&] { return InUse() == 0; }));
  ExpectIsGone(*lost);
}

TEST_P(LostSessionTest, IsNotKeptUnlessThatIsWanted) {
  Start();
  Stream plain(*server_, door(), OpenOf(2, 0, v1::DTYPE_FP32));
  EXPECT_EQ(plain.facts().resume_token(), "");
  plain.Cancel();
  EXPECT_TRUE(Becomes([&] { return InUse() == 0; }));
  const std::unique_ptr<Stream> closed = Open();
  EXPECT_TRUE(closed->HalfClose().ok());
  EXPECT_EQ(InUse(), 0);
  ExpectIsGone(*closed);
  v1::SessionOpen open = OpenOf(2, 0, v1::DTYPE_FP32);
  open.mutable_grace()->set_seconds(-1);
  Stream wrong(*server_, door(), open);
  EXPECT_FALSE(wrong.opened());
  options_.session_grace = absl::ZeroDuration();
  Start();
  EXPECT_EQ(Open()->facts().resume_token(), "");
}

TEST_P(LostSessionTest, IsNoneThatWasClosedOrEvictedBefore) {
  Start();
  v1::SessionOpen open = OpenOf(64, 0, v1::DTYPE_FP32);
  open.set_max_tokens(2000);
  open.mutable_grace()->set_seconds(20);
  const v1::SessionRequest takes_long = TokenStep(1, 64, 1500);
  {
    Stream closed(*server_, door(), open);
    ASSERT_TRUE(closed.Write(takes_long));
    closed.SayClose();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    closed.Cancel();
    EXPECT_TRUE(Becomes([&] { return InUse() == 0; }));
    ExpectIsGone(closed);
  }
  // A half-close is a loss, until an operator ends it.
  if (door() == Door::kLocal) return;
  Stream evicted(*server_, door(), open);
  ASSERT_TRUE(evicted.Write(takes_long));
  evicted.EndWrites();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::unique_ptr<v1::SessionService::Stub> stub = v1::SessionService::NewStub(server_->channel());
  v1::ListSessionsResponse listed;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->ListSessions(&context, {}, &listed).ok());
  }
  ASSERT_EQ(listed.sessions_size(), 1);
  v1::EvictSessionRequest request;
  request.set_id(listed.sessions(0).id());
  grpc::ClientContext context;
  v1::EvictSessionResponse response;
  ASSERT_TRUE(stub->EvictSession(&context, request, &response).ok());
  EXPECT_EQ(evicted.Finish().code, StatusCode::ABORTED);
  ExpectIsGone(evicted);
  EXPECT_TRUE(Becomes([&] { return InUse() == 0; }));
}

// What one door has no room for is left for the other.
TEST_P(LostSessionTest, IsKeptWhereTheOneWhoResumesCannotHaveIt) {
  if (door() == Door::kLocal) GTEST_SKIP() << "it has more room by gRPC";
  Start();
  v1::SessionOpen open = OpenOf(20000, 0, v1::DTYPE_FP32);
  open.set_max_tokens(1);
  open.mutable_grace()->set_seconds(20);
  Stream lost(*server_, door(), open);
  ASSERT_TRUE(lost.opened()) << lost.Finish().message;
  lost.Cancel();
  const std::unique_ptr<Stream> local = Stream::Resumed(*server_, Door::kLocal, lost);
  ASSERT_FALSE(local->opened());
  EXPECT_EQ(local->Finish().detail.field(), "rows");
  EXPECT_TRUE(Stream::Resumed(*server_, Door::kGrpc, lost)->opened());
}

TEST_P(LostSessionTest, IsTakenFromAConnectionThatHasItStill) {
  Start();
  const std::unique_ptr<Stream> first = Open();
  const std::unique_ptr<Stream> second = Stream::Resumed(*server_, door(), *first);
  ASSERT_TRUE(second->opened());
  EXPECT_EQ(second->Ask(TokenStep(2, 2)).lengths(1), 2);
  const SessionEnd end = first->Finish();
  EXPECT_EQ(end.code, StatusCode::ABORTED);
  EXPECT_THAT(end.message, HasSubstr("resumes it"));
  EXPECT_TRUE(second->HalfClose().ok());
  EXPECT_EQ(InUse(), 0);
}

TEST_P(LostSessionTest, IsSeenAndEvictedByOperatorsAndAStopFreesIt) {
  Start();
  const std::unique_ptr<v1::SessionService::Stub> stub = v1::SessionService::NewStub(server_->channel());
  const std::unique_ptr<Stream> first = Open(), second = Open();
  first->Cancel();
  second->Cancel();
  EXPECT_TRUE(Becomes([&] { return server_->server().calls_in_flight() == 0; })) << "it holds no stop up";
  v1::ListSessionsResponse listed;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->ListSessions(&context, {}, &listed).ok());
  }
  ASSERT_EQ(listed.sessions_size(), 2);
  EXPECT_EQ(listed.sessions(0).steps(), 1U);
  EXPECT_GT(listed.sessions(0).used_bytes(), 0);
  v1::EvictSessionRequest request;
  request.set_id(listed.sessions(0).id());
  {
    grpc::ClientContext context;
    v1::EvictSessionResponse evicted;
    ASSERT_TRUE(stub->EvictSession(&context, request, &evicted).ok());
  }
  const std::unique_ptr<Stream> resumed = Stream::Resumed(*server_, door(), *second);
  EXPECT_TRUE(resumed->opened());
  resumed->Cancel();
  EXPECT_TRUE(Becomes([&] { return server_->server().calls_in_flight() == 0; }));
  EXPECT_GT(InUse(), 0);
  server_->server().Stop();
  EXPECT_EQ(InUse(), 0);
}

TEST_P(SessionTest, OperatorsSeeAndEvictThem) {
  SessionServer server;
  const std::unique_ptr<v1::SessionService::Stub> stub = v1::SessionService::NewStub(server.channel());
  const auto list = [&] {
    grpc::ClientContext context;
    v1::ListSessionsResponse listed;
    EXPECT_TRUE(stub->ListSessions(&context, {}, &listed).ok());
    return listed;
  };
  EXPECT_EQ(list().sessions_size(), 0);
  Stream first(server, door(), OpenOf(3, 1, v1::DTYPE_FP32)), second(server, door(), OpenOf(1, 0, v1::DTYPE_FP32));
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
  EXPECT_THAT(info.peer(), StartsWith(door() == Door::kGrpc ? "ipv4:127.0.0.1" : "local:uid:"));
  EXPECT_EQ(listed.sessions(1).used_bytes(), 0);
  const auto evict = [&](std::uint64_t id) {
    grpc::ClientContext context;
    v1::EvictSessionRequest request;
    request.set_id(id);
    v1::EvictSessionResponse evicted;
    return stub->EvictSession(&context, request, &evicted);
  };
  EXPECT_TRUE(evict(info.id()).ok());
  const SessionEnd status = first.Finish();
  EXPECT_EQ(status.code, StatusCode::ABORTED);
  EXPECT_THAT(status.message, HasSubstr("evicted"));
  EXPECT_EQ(evict(info.id()).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(second.Ask(TokenStep(1, 1)).code(), 0);
}

TEST_P(SessionTest, AStoppingServerSaysSoAndEndsThemAtItsDeadline) {
  server::Options options = TestOptions();
  options.drain = absl::Seconds(2);
  SessionServer server(options);
  const v1::SessionOpen open = OpenOf(1, 0, v1::DTYPE_FP32);
  Stream left(server, door(), open), finished(server, door(), open), unopened(server, door());
  // By the local door there is nothing before the first message.
  ASSERT_TRUE(Becomes([&] { return server.server().calls_in_flight() == (door() == Door::kGrpc ? 3 : 2); }));
  std::thread stop([&] { server.server().Stop(); });
  for (Stream* stream : {&left, &finished}) {
    ASSERT_TRUE(stream->Read());
    ASSERT_TRUE(stream->reply().has_going_away());
    EXPECT_EQ(stream->reply().going_away().time_left().seconds(), 2);
    EXPECT_EQ(stream->Ask(TokenStep(1, 1)).code(), 0);
  }
  if (door() == Door::kLocal) {
    v1::SessionRequest late;
    *late.mutable_open() = open;
    EXPECT_TRUE(unopened.Write(late));
  }
  EXPECT_EQ(unopened.Finish().code, StatusCode::UNAVAILABLE);
  EXPECT_TRUE(finished.HalfClose().ok());
  const SessionEnd cut_off = left.Finish();
  // gRPC's cancellation of all calls may overtake the status.
  EXPECT_TRUE(cut_off.code == StatusCode::UNAVAILABLE || (door() == Door::kGrpc && !cut_off.ok())) << cut_off.message;
  if (door() == Door::kLocal) {
    EXPECT_THAT(cut_off.message, HasSubstr("stopping"));
  }
  stop.join();
  EXPECT_EQ(server.server().inflight_bytes(), 0);
}

TEST_P(SessionTest, KeepsItsModelsVersion) {
  SessionServer server;
  Stream stream(server, door(), OpenOf(2, 0, v1::DTYPE_FP32));
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
  EXPECT_FALSE(Stream(server, door(), OpenOf(2, 0, v1::DTYPE_FP32)).opened());
}

// However sessions end, nothing of them is left.
TEST_P(SessionTest, NothingIsLostHoweverTheyEnd) {
  SessionServer server;
  const v1::SessionOpen open = OpenOf(3, 1, v1::DTYPE_BF16);
  for (int i = 0; i < 200; ++i) {
    Stream stream(server, door(), open, i % 4 == 3 ? NewChannel(server.address()) : nullptr);
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
