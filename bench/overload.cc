// Runs the model of a server under overload (overload_model.h) and prints the result as a line of JSON.
//
//   attnd_overload [--cores N] [--peers N] [--load F] [--events N] [--seed N] [--places N]
//
// A twentieth of the peers, but at least one, is of each kind greedy, slow, silent, deaf and dying; the others are
// honest.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "overload_model.h"

ABSL_FLAG(int, cores, 2, "that compute, and receive");
ABSL_FLAG(int, peers, 20, "in all");
ABSL_FLAG(double, load, 2, "calls that come, of those that can be answered");
ABSL_FLAG(std::int64_t, events, 1'000'000, "until the server stops");
ABSL_FLAG(std::uint64_t, seed, 1, "of all that is random");
ABSL_FLAG(int, places, 0, "messages received at once; 0: as the server");

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("attnd_overload: see bench/overload.cc");
  absl::ParseCommandLine(argc, argv);
  attnd::bench::OverloadOptions options;
  options.cores = absl::GetFlag(FLAGS_cores);
  const int each = std::max(1, absl::GetFlag(FLAGS_peers) / 20);
  options.greedy = options.slow = options.silent = options.deaf = options.dying = each;
  options.honest = std::max(1, absl::GetFlag(FLAGS_peers) - 5 * each);
  options.load = absl::GetFlag(FLAGS_load);
  options.events = absl::GetFlag(FLAGS_events);
  options.seed = absl::GetFlag(FLAGS_seed);
  options.places = absl::GetFlag(FLAGS_places);
  options.total_bytes = options.cores * (std::int64_t{1} << 30);
  const attnd::bench::OverloadResult result = attnd::bench::RunOverload(options);
  std::cout << nlohmann::json({{"wrong", result.wrong},
                               {"calls", result.calls},
                               {"answered", result.answered},
                               {"refused_at_headers", result.refused_at_headers},
                               {"refused_later", result.refused_later},
                               {"expired", result.expired},
                               {"cancelled", result.cancelled},
                               {"stalled", result.stalled},
                               {"seconds", result.seconds},
                               {"goodput", result.goodput},
                               {"honest_answered", result.honest_answered},
                               {"least_answered", result.least_answered},
                               {"stop_seconds", result.stop_seconds},
                               {"us_per_event", result.us_per_event}})
            << std::endl;
  return result.wrong.empty() ? 0 : 1;
}
