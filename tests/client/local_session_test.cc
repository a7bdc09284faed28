// Sessions over the local socket: which of them go there, and servers that break off, say nothing, or say what is no
// answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attnd/client.h"
#include "attnd/shm/protocol.h"
#include "fake_local_server.h"
#include "fake_server.h"
#include "fake_session.h"
#include "signals.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::client {
namespace {

using Peer = FakeLocalServer::Peer;

using test::Becomes;
using testing::ElementsAre;
using testing::HasSubstr;

// [1, 1, length, kFakeDim] floats from `first` on.
struct Floats {
  explicit Floats(std::int64_t length, float first = 0) : values(static_cast<std::size_t>(length * kFakeDim)) {
    for (float& value : values) value = first++;
    view = {values.data(), DType::kFp32, {1, 1, length, kFakeDim}};
  }
  Floats(const Floats&) = delete;
  std::vector<float> values;
  TensorView view;
};

StepRequest StepOf(const Floats& q, const Floats& kv) {
  StepRequest step;
  step.q = q.view;
  step.k = step.v = kv.view;
  step.return_log_sum_exp = true;
  return step;
}

void ExpectEcho(const absl::StatusOr<StepReply>& reply, const Floats& q, const Floats& kv) {
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->output.size_bytes(), q.values.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(reply->output.data(), q.values.data(), reply->output.size_bytes()), 0);
  EXPECT_EQ(reply->output.sizes(), q.view.sizes);
  ASSERT_EQ(reply->log_sum_exp.size(), q.values.size() / kFakeDim);
  EXPECT_EQ(reply->log_sum_exp.back(), q.values[q.values.size() - kFakeDim]);
  EXPECT_THAT(reply->lengths, ElementsAre(static_cast<std::int64_t>(2 * kv.values.size() * sizeof(float))));
}

class LocalSessionTest : public testing::Test {
 protected:
  LocalSessionTest() { options_.retry.enabled = false; }

  std::string path() const { return folder_.path() + "/s"; }
  static SessionRequest Opening() {
    SessionRequest request;
    SessionLayer layer;
    layer.heads = 1;
    layer.head_dim = kFakeDim;
    layer.bias = Bias::kNone;
    request.layers = {layer};
    request.max_tokens = 10'000;
    return request;
  }
  absl::StatusOr<std::unique_ptr<Session>> TryOpen(const SessionRequest& request = Opening(),
                                                   const CallOptions& call = {}) const {
    return Client::Create("unix:" + path(), options_)->OpenSession(request, call);
  }
  std::unique_ptr<Session> Open(const CallOptions& call = {}) const {
    absl::StatusOr<std::unique_ptr<Session>> session = TryOpen(Opening(), call);
    EXPECT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->facts().transport, Transport::kLocal);
    return *std::move(session);
  }
  // From now on steps are answered by `answer`, which has the connection closed by false.
  void OnStep(FakeLocalServer::Handler answer) {
    local_.OnSession([this, answer = std::move(answer)](const Peer& peer, const v1::LocalRequest& request) {
      return request.session().has_step() ? answer(peer, request) : sessions_.Answer(peer, request);
    });
  }

  const test::TempFolder folder_;
  ClientOptions options_;
  FakeSessions grpc_sessions_;
  FakeServer grpc_{{&grpc_sessions_}, "unix:" + path()};
  FakeLocalServer local_{path() + shm::kSocketSuffix};
  FakeLocalSessions sessions_{local_};
};

TEST_F(LocalSessionTest, SmallTensorsTravelInTheDatagram) {
  const std::unique_ptr<Session> session = Open();
  EXPECT_EQ(session->facts().reserved_bytes, 1000);
  EXPECT_EQ(session->facts().page_tokens, 64);
  EXPECT_EQ(session->facts().content_hash, "hash");
  for (int i = 0; i < 3; ++i) {
    const Floats q(1 + i, static_cast<float>(i)), kv(2, 5);
    ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  }
  for (const v1::SessionStep& step : sessions_.steps()) {
    EXPECT_FALSE(step.has_q_shared() || step.has_k_shared() || step.has_v_shared()) << step.ShortDebugString();
    EXPECT_FALSE(step.has_output_shared() || step.has_log_sum_exp_shared()) << step.ShortDebugString();
  }
  EXPECT_EQ(sessions_.steps().size(), 3U);
  EXPECT_EQ(local_.connections.load(), 1);
  EXPECT_EQ(grpc_sessions_.opened.load(), 0);
}

TEST_F(LocalSessionTest, LargeTensorsLieInSharedMemoryAndResultsAreCopiedOut) {
  const std::unique_ptr<Session> session = Open();
  ASSERT_EQ(local_.registered.load(), 1);
  std::vector<StepReply> replies;
  // From all in the datagram to all but it, with both sizes at which something changes.
  const std::int64_t lengths[] = {1, 320, 335, 338, 339, 340, 345, 900, 960, 1000, 1024, 1025, 5000, 20'000, 3};
  std::vector<std::unique_ptr<Floats>> tensors;
  for (const std::int64_t length : lengths) {
    tensors.push_back(std::make_unique<Floats>(length, static_cast<float>(length)));
    const Floats kv(length / 2 + 1);
    absl::StatusOr<StepReply> reply = session->Step(StepOf(*tensors.back(), kv));
    ExpectEcho(reply, *tensors.back(), kv);
    replies.push_back(*std::move(reply));
  }
  for (std::size_t i = 0; i < replies.size(); ++i) {
    EXPECT_EQ(std::memcmp(replies[i].output.data(), tensors[i]->values.data(), replies[i].output.size_bytes()), 0);
  }
  int inputs = 0, results = 0;
  for (const v1::SessionStep& step : sessions_.steps()) {
    inputs += step.has_q_shared() && step.has_k_shared() && step.has_v_shared() ? 1 : 0;
    results += step.has_output_shared() && step.has_log_sum_exp_shared() ? 1 : 0;
    EXPECT_EQ(step.log_sum_exp_shared().offset() % 4, 0U);
  }
  EXPECT_GT(inputs, results);
  EXPECT_GT(results, 2);
  EXPECT_LT(inputs, static_cast<int>(std::size(lengths)) - 2);
  // It has grown, and there is one in the end.
  EXPECT_GT(local_.registered.load(), 2);
  EXPECT_TRUE(Becomes([&] { return local_.registered.load() == local_.released.load() + 1; }));
}

// 68 bytes for each query, and of the datagram's 65536 bytes the server keeps 1024, and 10 for the length.
TEST_F(LocalSessionTest, ResultsThatLeaveTheServerNoRoomLieInSharedMemory) {
  const std::unique_ptr<Session> session = Open();
  struct Case {
    std::int64_t queries;
    bool shared;
  };
  for (const Case& c : {Case{948, false}, Case{949, true}}) {
    const Floats q(c.queries), kv(1);
    ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
    const v1::SessionStep step = sessions_.steps().back();
    EXPECT_EQ(step.has_output_shared(), c.shared) << c.queries;
    EXPECT_EQ(step.has_log_sum_exp_shared(), c.shared) << c.queries;
  }
}

TEST_F(LocalSessionTest, AStepWithoutMemoryToShareIsRefusedAndTheSessionGoesOn) {
  const std::unique_ptr<Session> session = Open();
  local_.shares_memory = false;
  const Floats small(1), large(3000), larger(4000);
  const absl::Status refused = session->Step(StepOf(small, large)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_EQ(GetErrorDetail(refused)->field, "k");
  EXPECT_EQ(GetErrorDetail(session->Step(StepOf(larger, large)).status())->field, "q");
  ExpectEcho(session->Step(StepOf(small, small)), small, small);
  StepRequest bits = StepOf(small, small);
  bits.key_bits.resize(70'000);
  EXPECT_EQ(GetErrorDetail(session->Step(bits).status())->field, "key_bits");
  ExpectEcho(session->Step(StepOf(small, small)), small, small);
}

TEST_F(LocalSessionTest, OthersGoByGrpc) {
  const auto by_grpc = [this](const SessionRequest& request = Opening(), const CallOptions& call = {}) {
    const auto session = TryOpen(request, call);
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->facts().transport, Transport::kGrpc);
    EXPECT_EQ(sessions_.opened.load(), 0);
    const Floats q(1), kv(2);
    ExpectEcho((*session)->Step(StepOf(q, kv)), q, kv);
  };
  SessionRequest request = Opening();
  request.rows = 1025;
  by_grpc(request);
  request.rows = 1;
  request.sources = 1025;
  by_grpc(request);
  request = Opening();
  request.sources = 1000;  // whose masks have 125 KiB
  request.max_source_tokens = 1000;
  by_grpc(request);
  request = Opening();
  request.layers.resize(10'000, request.layers[0]);
  by_grpc(request);
  CallOptions metadata;
  metadata.metadata = {{"x-a", "b"}};
  by_grpc(Opening(), metadata);
  options_.local_calls = false;
  by_grpc();
  options_.local_calls = true;
  options_.shared_memory = false;
  by_grpc();
  options_.shared_memory = true;
  local_.shares_memory = false;
  by_grpc();
  local_.shares_memory = true;
  local_.OnHello(FakeLocalServer::Greet);  // of a server that is older
  by_grpc();
  local_.OnHello([](const Peer&, const v1::LocalRequest&) { return false; });
  by_grpc();
  options_.local_calls = false;
  EXPECT_EQ(grpc_sessions_.opened.load(), 10);
}

TEST_F(LocalSessionTest, ASilentSocketHoldsUpAnOpeningForASecond) {
  local_.OnHello([](const Peer&, const v1::LocalRequest&) { return true; });
  Client client = *Client::Create("unix:" + path(), options_);
  for (int i = 0; i < 3; ++i) EXPECT_EQ((*client.OpenSession(Opening()))->facts().transport, Transport::kGrpc);
  EXPECT_EQ(local_.hellos.load(), 1);
}

TEST_F(LocalSessionTest, SessionsHaveConnectionsOfTheirOwnWhileCallsFindOut) {
  Client client = *Client::Create("unix:" + path(), options_);
  std::vector<std::unique_ptr<Session>> opened(80);
  std::vector<std::thread> threads;
  for (std::unique_ptr<Session>& session : opened) {
    threads.emplace_back([&] { session = *client.OpenSession(Opening()); });
  }
  for (std::thread& thread : threads) thread.join();
  const Floats q(1), kv(2);
  for (const std::unique_ptr<Session>& session : opened) {
    EXPECT_EQ(session->facts().transport, Transport::kLocal);
    ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  }
  EXPECT_EQ(local_.standing.load(), 80);
  opened.clear();
  EXPECT_TRUE(Becomes([&] { return local_.standing.load() == 0; }));
}

TEST_F(LocalSessionTest, ARefusedOpeningIsAnErrorWithItsDetail) {
  local_.OnSession([](const Peer& peer, const v1::LocalRequest&) {
    v1::LocalSessionEnd end;
    end.set_code(8);
    end.set_message("no room");
    end.mutable_detail()->set_field("open.rows");
    end.mutable_detail()->set_expected("fewer");
    end.mutable_retry_delay()->set_seconds(3);
    return FakeLocalSessions::SendEnd(peer, end);
  });
  const absl::Status refused = TryOpen().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.message(), "no room");
  EXPECT_TRUE(AnsweredByServer(refused));
  ASSERT_TRUE(GetErrorDetail(refused).has_value());
  EXPECT_EQ(GetErrorDetail(refused)->field, "open.rows");
  EXPECT_EQ(GetErrorDetail(refused)->retry_delay, absl::Seconds(3));
  EXPECT_EQ(grpc_sessions_.opened.load(), 0);
}

TEST_F(LocalSessionTest, AStepThatFailsLeavesTheSession) {
  OnStep([this](const Peer& peer, const v1::LocalRequest& request) {
    if (request.session().step().step() != 2 || sessions_.steps().size() != 1) return sessions_.Answer(peer, request);
    v1::SessionReply reply = sessions_.AnswerOf(request);
    reply.clear_output();
    reply.clear_log_sum_exp();
    reply.mutable_result()->set_code(9);
    reply.mutable_result()->set_message("other lengths");
    reply.mutable_result()->mutable_detail()->set_field("expected_lengths[0]");
    return FakeLocalSessions::SendReply(peer, reply);
  });
  const std::unique_ptr<Session> session = Open();
  const Floats q(1), kv(2);
  ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  const absl::Status refused = session->Step(StepOf(q, kv)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  EXPECT_EQ(GetErrorDetail(refused)->field, "expected_lengths[0]");
  ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  EXPECT_EQ(sessions_.steps().back().step(), 2U);
}

TEST_F(LocalSessionTest, CloseWaitsForTheEndAndTheDestructorForNothing) {
  const std::unique_ptr<Session> session = Open();
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(sessions_.closed.load(), 1);
  EXPECT_TRUE(session->Close().ok());
  EXPECT_EQ(sessions_.closed.load(), 1);
  EXPECT_EQ(session->Step({}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Becomes([&] { return local_.standing.load() == 0; }));
  Open().reset();
  EXPECT_EQ(sessions_.closed.load(), 1);
  EXPECT_TRUE(Becomes([&] { return local_.standing.load() == 0; }));
}

TEST_F(LocalSessionTest, CloseDoesNotWaitForEver) {
  local_.OnSessionClose([](const Peer&, const v1::LocalRequest&) { return true; });
  const std::unique_ptr<Session> session = Open();
  EXPECT_EQ(session->Close().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(session->Close().ok());
}

TEST_F(LocalSessionTest, AnEndInTheMiddleIsTheErrorOfEveryStep) {
  for (const bool in_a_step : {false, true}) {
    for (const bool closes : {false, true}) {
      const auto end = [closes](const Peer& peer) {
        EXPECT_TRUE(FakeLocalSessions::SendEnd(peer, 10, "evicted"));
        if (closes) shutdown(peer->get(), SHUT_RDWR);
        return true;
      };
      OnStep([end, in_a_step](const Peer& peer, const v1::LocalRequest&) { return !in_a_step || end(peer); });
      const std::unique_ptr<Session> session = Open();
      if (!in_a_step) end(sessions_.opener());
      const Floats q(1), kv(2), large(5000);
      for (int i = 0; i < 2; ++i) {
        // The second one would have memory registered.
        const absl::Status ended = session->Step(StepOf(q, i == 0 ? kv : large)).status();
        EXPECT_EQ(ended.code(), absl::StatusCode::kAborted) << ended;
        EXPECT_EQ(ended.message(), "evicted");
        EXPECT_TRUE(AnsweredByServer(ended));
      }
      EXPECT_TRUE(session->Close().ok());
    }
  }
}

TEST_F(LocalSessionTest, AnEndIsReadWhereTheConnectionIsClosedWithBytesUnread) {
  options_.keepalive_time = absl::Milliseconds(50);
  OnStep([this](const Peer& peer, const v1::LocalRequest& request) {
    // The question for a sign of life, which is not read.
    pollfd polled{peer->get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, 20'000), 1);
    sessions_.Answer(peer, request);
    EXPECT_TRUE(FakeLocalSessions::SendEnd(peer, 10, "evicted"));
    return false;
  });
  const std::unique_ptr<Session> session = Open();
  const Floats q(1), kv(2);
  // The close may overtake the answer, but not the end.
  if (const absl::StatusOr<StepReply> reply = session->Step(StepOf(q, kv)); reply.ok()) {
    ExpectEcho(reply, q, kv);
  } else {
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kAborted);
  }
  EXPECT_TRUE(Becomes([&] { return local_.standing.load() == 0; }));
  EXPECT_EQ(session->Step(StepOf(q, kv)).status().code(), absl::StatusCode::kAborted);
}

TEST_F(LocalSessionTest, WhatIsSaidWhileMemoryIsRegisteredIsNotLost) {
  const Floats q(1), large(5000);
  const auto going_away = [](const Peer& peer, shm::Operation operation) {
    if (operation != shm::Operation::kRegister) return;
    v1::SessionReply reply;
    reply.mutable_going_away()->mutable_time_left()->set_seconds(7);
    EXPECT_TRUE(FakeLocalSessions::SendReply(peer, reply));
  };
  std::unique_ptr<Session> session = Open();
  local_.OnFixed(going_away);
  ExpectEcho(session->Step(StepOf(q, large)), q, large);
  EXPECT_EQ(session->going_away(), absl::Seconds(7));
  local_.OnFixed(nullptr);
  session = Open();
  EXPECT_FALSE(session->going_away().has_value());
  local_.OnFixed(
      [](const Peer& peer, shm::Operation) { EXPECT_TRUE(FakeLocalSessions::SendEnd(peer, 10, "evicted")); });
  EXPECT_EQ(session->Step(StepOf(q, large)).status().code(), absl::StatusCode::kAborted);
}

TEST_F(LocalSessionTest, AServerThatDiesIsUnavailable) {
  std::unique_ptr<Session> session;
  OnStep([](const Peer&, const v1::LocalRequest&) { return false; });
  const Floats q(1), kv(2);
  session = Open();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(session->Step(StepOf(q, kv)).status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_TRUE(session->Close().ok());
  session = Open();
  local_.OnSessionClose([](const Peer&, const v1::LocalRequest&) { return false; });
  EXPECT_EQ(session->Close().code(), absl::StatusCode::kUnavailable);
  // While memory is registered.
  session = Open();
  local_.OnFixed([](const Peer& peer, shm::Operation) { shutdown(peer->get(), SHUT_RDWR); });
  const Floats large(5000);
  EXPECT_EQ(session->Step(StepOf(q, large)).status().code(), absl::StatusCode::kUnavailable);
  local_.OnFixed(nullptr);
  // In an opening.
  local_.OnSession([](const Peer&, const v1::LocalRequest&) { return false; });
  EXPECT_EQ(TryOpen().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(grpc_sessions_.opened.load(), 0);
}

TEST_F(LocalSessionTest, AnOpeningThatWasLostIsRepeated) {
  options_.retry.enabled = true;
  std::atomic<int> openings{0};
  local_.OnSession([&](const Peer& peer, const v1::LocalRequest& request) {
    return ++openings > 1 && sessions_.Answer(peer, request);
  });
  EXPECT_EQ(Open()->facts().transport, Transport::kLocal);
  EXPECT_EQ(openings.load(), 2);
}

TEST_F(LocalSessionTest, WhatIsNoAnswerIsAnErrorAndEndsTheSession) {
  using Reply = std::function<std::string(const v1::LocalRequest&)>;
  const auto whole = [this](const v1::LocalRequest& request) {
    v1::LocalReply reply;
    *reply.mutable_session() = sessions_.AnswerOf(request);
    return reply;
  };
  const std::vector<std::pair<std::string, Reply>> kinds = {
      {"garbage", [](const auto&) { return std::string("\xff\x01\x02garbage"); }},
      {"a welcome",
       [](const auto&) {
         v1::LocalReply reply;
         reply.mutable_welcome()->set_version(1);
         return reply.SerializeAsString();
       }},
      {"cut short",
       [&](const v1::LocalRequest& request) {
         const std::string bytes = whole(request).SerializeAsString();
         return bytes.substr(0, bytes.size() / 2);
       }},
      {"of another step",
       [&](const v1::LocalRequest& request) {
         v1::LocalReply reply = whole(request);
         reply.mutable_session()->mutable_result()->set_step(7);
         return reply.SerializeAsString();
       }},
      {"of an opening",
       [&](const v1::LocalRequest&) {
         v1::LocalReply reply;
         reply.mutable_session()->mutable_opened()->set_page_tokens(64);
         return reply.SerializeAsString();
       }},
      {"an end without an error",
       [&](const v1::LocalRequest&) {
         v1::LocalReply reply;
         reply.mutable_session_end();
         return reply.SerializeAsString();
       }},
      {"too large",
       [&](const v1::LocalRequest& request) { return whole(request).SerializeAsString() + std::string(66'000, '\0'); }},
  };
  const Floats q(1), kv(2);
  for (const auto& [name, kind] : kinds) {
    OnStep([&, &kind = kind](const Peer& peer, const v1::LocalRequest& request) {
      return FakeLocalServer::Send(peer, kind(request));
    });
    const std::unique_ptr<Session> session = Open();
    for (int i = 0; i < 2; ++i) {
      const absl::Status status = session->Step(StepOf(q, kv)).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << name << ": " << status;
    }
    EXPECT_TRUE(session->Close().ok());
  }
}

TEST_F(LocalSessionTest, AnAnswerOfTheWrongSizeIsAnError) {
  OnStep([this](const Peer& peer, const v1::LocalRequest& request) {
    v1::SessionReply reply = sessions_.AnswerOf(request);
    reply.mutable_output()->pop_back();
    return FakeLocalSessions::SendReply(peer, reply);
  });
  const Floats q(1), kv(2);
  EXPECT_EQ(Open()->Step(StepOf(q, kv)).status().code(), absl::StatusCode::kInternal);
}

TEST_F(LocalSessionTest, AServerWithoutASignOfLifeIsUnavailable) {
  options_.keepalive_time = options_.keepalive_timeout = absl::Milliseconds(50);
  OnStep([](const Peer&, const v1::LocalRequest&) { return true; });
  local_.lifeless = true;
  const std::unique_ptr<Session> session = Open();
  const Floats q(1), kv(2);
  const absl::Status status = session->Step(StepOf(q, kv)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("no sign of life"));
}

TEST_F(LocalSessionTest, ABusyServerIsWaitedForAndItsSignsAreNoAnswers) {
  options_.keepalive_time = options_.keepalive_timeout = absl::Milliseconds(50);
  std::optional<std::pair<Peer, v1::LocalRequest>> waiting;
  OnStep([&](const Peer& peer, const v1::LocalRequest& request) {
    waiting.emplace(peer, request);
    return true;
  });
  const std::unique_ptr<Session> session = Open();
  const Floats q(1), large(5000), larger(50'000);
  for (const Floats* kv : {&large, &larger}) {
    std::thread answer([&, signs = local_.signs.load()] {
      EXPECT_TRUE(Becomes([&] { return local_.signs.load() >= signs + 3; }));
      sessions_.Answer(waiting->first, waiting->second);
    });
    ExpectEcho(session->Step(StepOf(q, *kv)), q, *kv);
    answer.join();
  }
}

TEST_F(LocalSessionTest, ASignThatComesLateIsNotTheAnswerToARegistration) {
  options_.keepalive_time = absl::Milliseconds(50);
  std::optional<v1::LocalRequest> waiting;
  OnStep([&](const Peer& peer, const v1::LocalRequest& request) {
    if (local_.signs.load() > 0) return sessions_.Answer(peer, request);
    waiting = request;
    return true;
  });
  const std::unique_ptr<Session> session = Open();
  // The answer comes between the question for a sign and the sign.
  local_.OnFixed([&](const Peer& peer, shm::Operation) {
    if (waiting.has_value()) sessions_.Answer(peer, *std::exchange(waiting, std::nullopt));
  });
  const Floats q(1), kv(2), large(5000);
  ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  EXPECT_TRUE(Becomes([&] { return local_.signs.load() == 1; }));
  ExpectEcho(session->Step(StepOf(q, large)), q, large);
}

TEST_F(LocalSessionTest, AStepEndsSomeTimeAfterItsOwn) {
  OnStep([](const Peer&, const v1::LocalRequest& request) {
    EXPECT_TRUE(request.session().step().has_timeout());
    return true;
  });
  const std::unique_ptr<Session> session = Open();
  const Floats q(1), kv(2);
  StepRequest step = StepOf(q, kv);
  step.timeout = absl::Milliseconds(1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(session->Step(step).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Becomes([&] { return local_.standing.load() == 0; }));
}

TEST_F(LocalSessionTest, AnOpeningHasADeadlineAndACancellationEndsAStep) {
  std::atomic<bool> asked{false};
  OnStep([&](const Peer&, const v1::LocalRequest&) { return asked = true; });
  CallOptions call;
  call.cancellation = std::make_shared<Cancellation>();
  const std::unique_ptr<Session> session = Open(call), idle = Open(call);
  std::thread canceller([&] {
    while (!asked) absl::SleepFor(absl::Milliseconds(1));
    call.cancellation->Cancel();
  });
  const Floats q(1), kv(2);
  EXPECT_EQ(session->Step(StepOf(q, kv)).status().code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_EQ(idle->Step(StepOf(q, kv)).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(TryOpen(Opening(), call).status().code(), absl::StatusCode::kCancelled);
  local_.OnSession([](const Peer&, const v1::LocalRequest&) { return true; });
  CallOptions late;
  late.deadline = absl::Now() + absl::Milliseconds(100);
  EXPECT_EQ(TryOpen(Opening(), late).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now(), late.deadline);
}

TEST_F(LocalSessionTest, SignalsDisturbNoStep) {
  OnStep([this](const Peer& peer, const v1::LocalRequest& request) {
    absl::SleepFor(absl::Milliseconds(5));
    return sessions_.Answer(peer, request);
  });
  const std::unique_ptr<Session> session = Open();
  const test::Signals signals;
  for (int i = 0; i < 20; ++i) {
    const Floats q(1), kv(i % 4 == 0 ? 1000 * i + 2 : 2);
    StepRequest step = StepOf(q, kv);
    if (i % 2 == 0) step.timeout = absl::Seconds(20);
    ExpectEcho(session->Step(step), q, kv);
  }
}

TEST_F(LocalSessionTest, AForkedChildIsRefusedAndLeavesTheSessionToItsParent) {
  std::unique_ptr<Session> session = Open();
  const Floats q(1), kv(2), large(5000);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool refused = session->Step(StepOf(q, kv)).status().code() == absl::StatusCode::kFailedPrecondition &&
                         session->Close().code() == absl::StatusCode::kFailedPrecondition;
    session.reset();
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  ExpectEcho(session->Step(StepOf(q, kv)), q, kv);
  ExpectEcho(session->Step(StepOf(q, large)), q, large);
}

TEST_F(LocalSessionTest, ByGrpcAStepBeyondTheServersMessagesIsRefusedBeforeItIsSent) {
  options_.local_calls = false;
  grpc_sessions_.max_message_bytes = 1000;
  const absl::StatusOr<std::unique_ptr<Session>> opened = TryOpen();
  ASSERT_TRUE(opened.ok()) << opened.status();
  Session& session = **opened;
  EXPECT_EQ(session.facts().transport, Transport::kGrpc);
  EXPECT_EQ(session.facts().max_message_bytes, 1000);
  const Floats one(1), most(20), half(7);  // of 64, 1280 and 448 bytes
  const std::vector<std::pair<StepRequest, std::string>> steps = {
      {StepOf(most, one), "q"}, {StepOf(one, most), "k"}, {StepOf(half, half), "v"}};
  for (const auto& [step, field] : steps) {
    const absl::Status refused = session.Step(step).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    ASSERT_TRUE(GetErrorDetail(refused).has_value());
    EXPECT_EQ(GetErrorDetail(refused)->field, field) << refused;
    ExpectEcho(session.Step(StepOf(one, one)), one, one);
  }
  StepRequest bits = StepOf(one, one);
  bits.key_bits.resize(1000);
  EXPECT_EQ(GetErrorDetail(session.Step(bits).status())->field, "key_bits");
  ExpectEcho(session.Step(StepOf(one, one)), one, one);
}

}  // namespace
}  // namespace attnd::client
