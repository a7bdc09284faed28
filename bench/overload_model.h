// A server under overload as a discrete-event model: the rooms' own queues and ledger, an injected clock, and random
// peers. For a test of what must always hold, and for figures of machines that are not here.
#pragma once

#include <cstdint>
#include <string>

namespace attnd::bench {

struct OverloadOptions {
  std::uint64_t seed = 1;
  int cores = 2;
  // Peers of each kind. Honest ones make calls at random times, as many each as the server could just answer all of
  // together, times `load`. Greedy ones make ten times as many. Slow ones send a hundred times as slowly; silent ones
  // send nothing after the headers; deaf ones never read a result; dying ones vanish with all their calls, and return.
  int honest = 8, greedy = 1, slow = 1, silent = 1, deaf = 1, dying = 1;
  double load = 2;
  double deadline_seconds = 1;
  double message_seconds = 0.001;  // what a message takes of the network alone
  double compute_seconds = 0.002;  // what a call takes of a core, on average
  std::int64_t message_bytes = 4 << 20;
  std::int64_t total_bytes = std::int64_t{1} << 30;
  double stall_seconds = 2;         // a result that is not read ends its call
  int places = 0;                   // messages that are received at once; 0: as the server has it by default
  std::int64_t events = 1'000'000;  // then the server stops: no call comes any more
};

struct OverloadResult {
  std::string wrong;  // the first thing that must not be and was; empty: none
  std::int64_t calls = 0, answered = 0, refused_at_headers = 0, refused_later = 0, expired = 0, cancelled = 0,
               stalled = 0;
  double seconds = 0;          // of the model's time, until the stop
  double goodput = 0;          // answered in time, of what the cores could do
  double least_answered = 0;   // of the honest peers' calls, those of the peer that fared worst
  double honest_answered = 0;  // of all honest peers' calls
  double stop_seconds = 0;     // from the stop until nothing was left
  double us_per_event = 0;     // real time of the process
};

// Runs it to its end. What is checked after each event: bytes and places are within their bounds, and nothing is
// answered after its deadline; at the end: every call has ended in one way, and nothing is held by anybody.
OverloadResult RunOverload(const OverloadOptions& options);

}  // namespace attnd::bench
