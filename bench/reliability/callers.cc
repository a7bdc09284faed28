// Well-behaved callers: how a server serves them while something else happens to it.
//
//   attnd_callers --target TARGET [--callers N] [--shape B,H,N,D] [--every_ms T | --rate R] [--deadline_ms D]
//                 [--seconds S | --calls C] [--forwarded_for ADDRESS]
//
// Each caller is a thread with its own client, without retries. It makes a call every `every_ms` (0: one after the
// other). With `rate`, the callers together begin that many calls per second, even while earlier ones are unanswered
// (an open loop). That needs an idle caller for each new call; "late_ms" shows if there were too few. SIGTERM ends them
// like the end of `seconds`. `forwarded_for` is sent as x-forwarded-for: for a server that trusts 127.0.0.1 as a proxy,
// the callers are then a separate peer. Prints one line of JSON: "calls", "served", "refused" (status code -> calls),
// "refused_p99_ms", "message" (of the first refusal), "p50_ms", "p99_ms" and "max_ms" of the served calls, "over_50_ms"
// (how many took longer), "seconds" (until the last answer), and "late_ms", the most by which a caller's own timer was
// late: a busy machine delays callers too.

#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "shape_flag.h"

ABSL_FLAG(std::string, target, "", "gRPC name of the server");
ABSL_FLAG(int, callers, 1, "threads that call");
ABSL_FLAG(std::string, shape, "1,8,512,64", "batch,heads,length,head_dim; fp32, without bias");
ABSL_FLAG(double, every_ms, 0, "time between the begins of a caller's calls; 0: one after the other");
ABSL_FLAG(double, rate, 0, "calls in a second, of all callers together; 0: as every_ms says");
ABSL_FLAG(double, deadline_ms, 60000, "of each call; 0: none");
ABSL_FLAG(std::string, forwarded_for, "", "the address that a proxy would name; empty: none");
ABSL_FLAG(double, seconds, 1, "how long, unless --calls is given");
ABSL_FLAG(int, calls, 0, "calls of each caller; 0: as many as fit into --seconds");
ABSL_FLAG(bool, local, false, "at a Unix socket: calls without gRPC, tensors in shared memory");

namespace attnd::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

std::atomic<bool> told_to_end{false};

struct Tally {
  std::vector<double> served_ms;
  std::vector<double> refused_ms;
  std::map<std::string, int> refused;
  std::string message;
  double late_ms = 0;
};

// The begin times of calls in an open loop. Thread-safe.
class Schedule {
 public:
  explicit Schedule(double rate) : between_(rate > 0 ? 1 / rate : 0) {}
  bool open() const { return between_.count() > 0; }
  Clock::time_point Next() {
    return begin_ + std::chrono::duration_cast<Clock::duration>(between_ * static_cast<double>(next_.fetch_add(1)));
  }

 private:
  const std::chrono::duration<double> between_;
  const Clock::time_point begin_ = Clock::now();
  std::atomic<std::int64_t> next_{0};
};

// Runs one caller until `end`, or for its number of calls.
Tally CallUntil(Client client, const std::array<std::int64_t, 4>& shape, Schedule& schedule, Clock::time_point end) {
  const auto elements = static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
  std::vector<float> q(elements, 0.5F), k = q, v = q, out(elements);
  ComputeRequest request;
  request.bias = Bias::kNone;
  request.q = {q.data(), DType::kFp32, shape};
  request.k = {k.data(), DType::kFp32, shape};
  request.v = {v.data(), DType::kFp32, shape};
  request.output = {out.data(), elements * sizeof(float)};
  CallOptions options;
  options.wait_for_ready = true;
  const std::string forwarded_for = absl::GetFlag(FLAGS_forwarded_for);
  if (!forwarded_for.empty()) options.metadata.emplace_back("x-forwarded-for", forwarded_for);
  const int calls = absl::GetFlag(FLAGS_calls);
  const auto every = std::chrono::duration_cast<Clock::duration>(Milliseconds(absl::GetFlag(FLAGS_every_ms)));

  Tally tally;
  Clock::time_point next = Clock::now();
  for (int i = 0; !told_to_end && (calls > 0 ? i < calls : Clock::now() < end); ++i) {
    if (schedule.open()) next = schedule.Next();
    if (schedule.open() && next >= end) break;
    if (schedule.open() || every.count() > 0) {
      std::this_thread::sleep_until(next);
      tally.late_ms = std::max(tally.late_ms, Milliseconds(Clock::now() - next).count());
    }
    const double deadline_ms = absl::GetFlag(FLAGS_deadline_ms);
    options.deadline = deadline_ms > 0 ? absl::Now() + absl::Milliseconds(deadline_ms) : absl::InfiniteFuture();
    const Clock::time_point start = Clock::now();
    const absl::StatusOr<ComputeReply> reply = client.Compute(request, options);
    const Clock::time_point done = Clock::now();
    if (reply.ok()) {
      tally.served_ms.push_back(Milliseconds(done - start).count());
    } else {
      if (tally.message.empty()) tally.message = std::string(reply.status().message());
      ++tally.refused[absl::StatusCodeToString(reply.status().code())];
      tally.refused_ms.push_back(Milliseconds(done - start).count());
      // A caller that is refused at once would otherwise make thousands of calls, which measure nothing about other
      // callers.
      if (!schedule.open()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    // Skips calls that would have begun meanwhile: the time of this call shows the delay.
    next = std::max(next + every, done);
  }
  return tally;
}

double Quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(q * static_cast<double>(sorted.size())))];
}

nlohmann::json Summary(const std::vector<Tally>& tallies, std::chrono::duration<double> took) {
  Tally all;
  for (const Tally& tally : tallies) {
    all.served_ms.insert(all.served_ms.end(), tally.served_ms.begin(), tally.served_ms.end());
    all.refused_ms.insert(all.refused_ms.end(), tally.refused_ms.begin(), tally.refused_ms.end());
    for (const auto& [code, count] : tally.refused) all.refused[code] += count;
    if (all.message.empty()) all.message = tally.message;
    all.late_ms = std::max(all.late_ms, tally.late_ms);
  }
  std::sort(all.served_ms.begin(), all.served_ms.end());
  std::sort(all.refused_ms.begin(), all.refused_ms.end());
  std::size_t calls = all.served_ms.size();
  for (const auto& [code, count] : all.refused) calls += static_cast<std::size_t>(count);
  const auto over = all.served_ms.end() - std::upper_bound(all.served_ms.begin(), all.served_ms.end(), 50.0);
  return {{"calls", calls},
          {"served", all.served_ms.size()},
          {"refused", all.refused},
          {"refused_p99_ms", Quantile(all.refused_ms, 0.99)},
          {"message", all.message},
          {"p50_ms", Quantile(all.served_ms, 0.5)},
          {"p99_ms", Quantile(all.served_ms, 0.99)},
          {"max_ms", Quantile(all.served_ms, 1)},
          {"over_50_ms", over},
          {"seconds", took.count()},
          {"late_ms", all.late_ms}};
}

absl::Status Run() {
  const auto shape = ParseShape(absl::GetFlag(FLAGS_shape));
  if (!shape.ok()) return shape.status();
  ClientOptions options;
  options.retry.enabled = false;
  options.shared_memory = options.local_calls = absl::GetFlag(FLAGS_local);
  std::vector<Client> clients;
  for (int i = 0; i < absl::GetFlag(FLAGS_callers); ++i) {
    absl::StatusOr<Client> client = Client::Create(absl::GetFlag(FLAGS_target), options);
    if (!client.ok()) return client.status();
    clients.push_back(*std::move(client));
  }
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end =
      begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(absl::GetFlag(FLAGS_seconds)));
  Schedule schedule(absl::GetFlag(FLAGS_rate));
  std::vector<Tally> tallies(clients.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    threads.emplace_back([&, i] { tallies[i] = CallUntil(clients[i], *shape, schedule, end); });
  }
  for (std::thread& thread : threads) thread.join();
  std::cout << Summary(tallies, Clock::now() - begin) << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace attnd::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("attnd_callers --target TARGET: see bench/reliability/callers.cc");
  absl::ParseCommandLine(argc, argv);
  signal(SIGTERM, [](int) { attnd::bench::told_to_end = true; });
  if (const absl::Status status = attnd::bench::Run(); !status.ok()) {
    std::cerr << "attnd_callers: " << status << std::endl;
    return 1;
  }
  return 0;
}
