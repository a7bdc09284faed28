// Small calls on an attnd that is stopped, killed and started again meanwhile; scripts/restarts.sh runs this.
//
//   restart_driver --target TARGET [--policy P] [--callers N] [--seconds S] [--rows N]
//     small calls, paced, until S have passed; with many rows (from 1024) they travel in pieces
//   restart_driver --target TARGET --long LENGTH [--pieces]
//     one call of that many rows
//
// Prints one line of JSON: calls, failures by code and the first message of each, and in seconds the median and the
// longest call, the longest beyond what the server says that it took ("over"), and the longest time without success.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "nlohmann/json.hpp"

ABSL_FLAG(std::string, target, "", "gRPC name of the servers");
ABSL_FLAG(std::string, policy, "round_robin", "load balancing policy");
ABSL_FLAG(int, callers, 8, "threads that call");
ABSL_FLAG(absl::Duration, pause, absl::Milliseconds(50), "what each waits after a call");
ABSL_FLAG(double, seconds, 10, "how long");
ABSL_FLAG(std::int64_t, rows, 64, "of each call");
ABSL_FLAG(absl::Duration, deadline, absl::Seconds(60), "of each call");
ABSL_FLAG(std::int64_t, long, 0, "make one call of this many rows instead");
ABSL_FLAG(bool, pieces, false, "of the long call: with keys and values for each head, so that it travels in pieces");

namespace attnd::restarts {
namespace {

// Heads of the model t5-tiny.
constexpr std::int64_t kHeads = 8;

class Tally {
 public:
  void Add(const absl::StatusOr<ComputeReply>& reply, absl::Time start) {
    const absl::Time end = absl::Now();
    absl::MutexLock lock(&mutex_);
    times_.push_back(absl::ToDoubleSeconds(end - start));
    if (!reply.ok()) {
      const std::string code = absl::StatusCodeToString(reply.status().code());
      if (failed_[code]++ == 0) words_[code] = std::string(reply.status().message());
      return;
    }
    over_ = std::max(over_, end - start - reply->queue_time - reply->compute_time);
    gap_ = std::max(gap_, end - last_success_);
    last_success_ = end;
  }

  std::string Json() {
    absl::MutexLock lock(&mutex_);
    gap_ = std::max(gap_, absl::Now() - last_success_);
    std::sort(times_.begin(), times_.end());
    return nlohmann::json({{"calls", times_.size()},
                           {"failed", failed_},
                           {"words", words_},
                           {"median", times_.empty() ? 0 : times_[times_.size() / 2]},
                           {"longest", times_.empty() ? 0 : times_.back()},
                           {"over", absl::ToDoubleSeconds(over_)},
                           {"gap", absl::ToDoubleSeconds(gap_)}})
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

 private:
  absl::Mutex mutex_;
  std::vector<double> times_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> failed_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> words_ ABSL_GUARDED_BY(mutex_);
  absl::Duration over_ ABSL_GUARDED_BY(mutex_);
  absl::Duration gap_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_success_ ABSL_GUARDED_BY(mutex_) = absl::Now();
};

// [1, heads, length, dim] of ones; keys and values of `kv_heads`.
class Problem {
 public:
  Problem(std::int64_t heads, std::int64_t kv_heads, std::int64_t length, std::int64_t dim)
      : values_(static_cast<std::size_t>(heads * length * dim), 1.0F) {
    request_.model = "t5-tiny";
    request_.first_head = 0;
    request_.q = {values_.data(), DType::kFp32, {1, heads, length, dim}};
    request_.k = request_.v = {values_.data(), DType::kFp32, {1, kv_heads, length, dim}};
  }
  const ComputeRequest& request() const { return request_; }

 private:
  std::vector<float> values_;
  ComputeRequest request_;
};

void Call(Client& client, const Problem& problem, Tally& tally) {
  const absl::Time start = absl::Now();
  CallOptions options;
  options.deadline = start + absl::GetFlag(FLAGS_deadline);
  tally.Add(client.Compute(problem.request(), options), start);
}

int Main() {
  ClientOptions options;
  options.load_balancing_policy = absl::GetFlag(FLAGS_policy);
  absl::StatusOr<Client> client = Client::Create(absl::GetFlag(FLAGS_target), options);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 2;
  }
  Tally tally;
  if (const std::int64_t length = absl::GetFlag(FLAGS_long); length > 0) {
    Call(*client, Problem(kHeads, absl::GetFlag(FLAGS_pieces) ? kHeads : 1, length, 16), tally);
  } else {
    const Problem problem(4, 4, absl::GetFlag(FLAGS_rows), 32);
    const absl::Time end = absl::Now() + absl::Seconds(absl::GetFlag(FLAGS_seconds));
    std::vector<std::thread> callers;
    for (int i = 0; i < absl::GetFlag(FLAGS_callers); ++i) {
      callers.emplace_back([&] {
        while (absl::Now() < end) {
          Call(*client, problem, tally);
          absl::SleepFor(absl::GetFlag(FLAGS_pause));
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  std::printf("%s\n", tally.Json().c_str());
  return 0;
}

}  // namespace
}  // namespace attnd::restarts

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_target).empty()) {
    std::fprintf(stderr, "--target is needed\n");
    return 2;
  }
  return attnd::restarts::Main();
}
