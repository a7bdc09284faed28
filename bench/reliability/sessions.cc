// Sessions that are opened, used and ended in every way.
//
//   attnd_sessions --target TARGET [--local] [--sessions N] [--idle | --ends | --seconds S]
//
// Opens N sessions with both self and cross layers, each with some tokens unless `idle`, prints "holding", and keeps
// them until SIGTERM. With `ends`, it opens, uses and ends them one after the other instead: closed, dropped, cancelled
// during a step, and evicted, in turn. It then prints one line of JSON: "ended" (how many), "failed" (how many behaved
// wrongly), "first" (message of the first failure), "open" (sessions that the server still lists), and "seconds". With
// `seconds`, one session makes steps for S seconds, one row against 1,000 tokens, with pauses of a millisecond; it
// prints "steps", "p50_us" and "p99_us".

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"

ABSL_FLAG(std::string, target, "", "gRPC name of the server");
ABSL_FLAG(bool, local, false, "at a Unix socket: sessions without gRPC");
ABSL_FLAG(int, sessions, 1, "how many");
ABSL_FLAG(bool, idle, false, "open them and do nothing with them");
ABSL_FLAG(double, seconds, 0, "how long to make steps of one session");
ABSL_FLAG(bool, ends, false, "one after the other, each ended in another way");

namespace attnd::bench {
namespace {

constexpr std::int64_t kRows = 4, kHeads = 8, kDim = 64;

SessionRequest Opening() {
  SessionRequest request;
  request.rows = kRows;
  request.sources = 1;
  request.max_tokens = request.max_source_tokens = 256;
  for (const SessionLayer::Kind kind : {SessionLayer::Kind::kSelf, SessionLayer::Kind::kCross}) {
    SessionLayer layer;
    layer.kind = kind;
    layer.heads = kHeads;
    layer.head_dim = kDim;
    layer.bias = Bias::kNone;
    request.layers.push_back(layer);
  }
  return request;
}

// Appends some tokens and attends with their queries.
absl::Status Use(Session& session, std::int64_t tokens) {
  const std::vector<float> values(static_cast<std::size_t>(kRows * kHeads * tokens * kDim), 0.5F);
  StepRequest step;
  step.q = step.k = step.v = {values.data(), DType::kFp32, {kRows, kHeads, tokens, kDim}};
  if (const absl::Status stepped = session.Step(step).status(); !stepped.ok()) return stepped;
  step.layer = 1;
  step.q.data = nullptr;
  step.k.sizes[0] = step.v.sizes[0] = 1;
  return session.Step(step).status();
}

enum class Way : std::uint8_t { kClosed, kDropped, kCancelled, kEvicted };

// Opens, uses and ends one session. OK if everything behaved as it should.
absl::Status EndOne(Client& client, Way way) {
  CallOptions options;
  options.cancellation = std::make_shared<Cancellation>();
  absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening(), options);
  if (!session.ok()) return session.status();
  if (const absl::Status used = Use(**session, 3); !used.ok()) return used;
  switch (way) {
    case Way::kClosed:
      return (*session)->Close();
    case Way::kDropped:
      return absl::OkStatus();
    case Way::kCancelled: {
      std::thread cancel([&] { options.cancellation->Cancel(); });
      absl::Status used;
      for (int i = 0; i < 60 && used.ok(); ++i) used = Use(**session, 4);
      cancel.join();
      return absl::IsCancelled(used) ? absl::OkStatus() : used;
    }
    case Way::kEvicted: {
      const absl::StatusOr<std::vector<OpenSessionInfo>> open = client.ListSessions();
      if (!open.ok()) return open.status();
      for (const OpenSessionInfo& info : *open) {
        if (const absl::Status evicted = client.EvictSession(info.id); !evicted.ok() && !absl::IsNotFound(evicted)) {
          return evicted;
        }
      }
      const absl::Status used = Use(**session, 1);
      return absl::IsAborted(used) ? absl::OkStatus() : absl::InternalError("an evicted session goes on");
    }
  }
  return absl::OkStatus();
}

absl::Status EndAll(Client& client) {
  const auto begin = std::chrono::steady_clock::now();
  int failed = 0;
  absl::Status first;
  for (int i = 0; i < absl::GetFlag(FLAGS_sessions); ++i) {
    const absl::Status ended = EndOne(client, static_cast<Way>(i % 4));
    if (ended.ok()) continue;
    ++failed;
    if (first.ok()) first = ended;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  // Sessions that were dropped last end within moments.
  std::size_t open = 1;
  for (int i = 0; i < 100 && open > 0; ++i) {
    const absl::StatusOr<std::vector<OpenSessionInfo>> listed = client.ListSessions();
    if (!listed.ok()) return listed.status();
    open = listed->size();
    absl::SleepFor(absl::Milliseconds(10));
  }
  const nlohmann::json report = {{"ended", absl::GetFlag(FLAGS_sessions)},
                                 {"failed", failed},
                                 {"first", std::string(first.message())},
                                 {"open", open},
                                 {"seconds", took.count()}};
  std::cout << report << std::endl;
  return absl::OkStatus();
}

absl::Status TimeSteps(Client& client) {
  constexpr std::int64_t kTokens = 1000;
  SessionRequest opening = Opening();
  opening.rows = 1;
  opening.sources = 0;
  opening.layers.pop_back();
  opening.max_tokens = kTokens + 1;
  opening.max_source_tokens = 0;
  absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(opening);
  if (!session.ok()) return session.status();
  const std::vector<float> values(static_cast<std::size_t>(kHeads * kTokens * kDim), 0.5F);
  StepRequest step;
  step.k = step.v = {values.data(), DType::kFp32, {1, kHeads, kTokens, kDim}};
  if (const absl::Status filled = (*session)->Step(step).status(); !filled.ok()) return filled;
  step.truncate = {kTokens};
  step.q = step.k = step.v = {values.data(), DType::kFp32, {1, kHeads, 1, kDim}};
  std::vector<double> times;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(absl::GetFlag(FLAGS_seconds));
  while (std::chrono::steady_clock::now() < end) {
    const auto begin = std::chrono::steady_clock::now();
    if (const absl::Status stepped = (*session)->Step(step).status(); !stepped.ok()) return stepped;
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
    absl::SleepFor(absl::Milliseconds(1));
  }
  if (times.empty()) return absl::InvalidArgumentError("--seconds: time enough for a step");
  std::sort(times.begin(), times.end());
  const nlohmann::json report = {
      {"steps", times.size()}, {"p50_us", times[times.size() / 2]}, {"p99_us", times[times.size() * 99 / 100]}};
  std::cout << report << std::endl;
  return absl::OkStatus();
}

absl::Status Hold(Client& client, const sigset_t& end) {
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < absl::GetFlag(FLAGS_sessions); ++i) {
    absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(Opening());
    if (!session.ok()) return session.status();
    sessions.push_back(*std::move(session));
    if (absl::GetFlag(FLAGS_idle)) continue;
    if (const absl::Status used = Use(*sessions.back(), 3); !used.ok()) return used;
  }
  std::cout << "holding" << std::endl;
  int signal = 0;
  sigwait(&end, &signal);
  return absl::OkStatus();
}

absl::Status Run(const sigset_t& end) {
  ClientOptions options;
  options.shared_memory = options.local_calls = absl::GetFlag(FLAGS_local);
  absl::StatusOr<Client> client = Client::Create(absl::GetFlag(FLAGS_target), options);
  if (!client.ok()) return client.status();
  if (absl::GetFlag(FLAGS_seconds) > 0) return TimeSteps(*client);
  return absl::GetFlag(FLAGS_ends) ? EndAll(*client) : Hold(*client, end);
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("attnd_sessions --target TARGET: see bench/reliability/sessions.cc");
  absl::ParseCommandLine(argc, argv);
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &end, nullptr);  // in every thread, for sigwait
  if (const absl::Status status = attnd::bench::Run(end); !status.ok()) {
    std::cerr << "attnd_sessions: " << status << std::endl;
    return 1;
  }
  return 0;
}
