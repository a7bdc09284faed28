// A server under overload as a discrete-event model: the real queues and ledger, an injected clock, and random peers.
// For testing invariants, and for estimates about machines that are not at hand.
#pragma once

#include <cstdint>
#include <string>

namespace attnd::bench {

struct OverloadOptions {
  std::uint64_t seed = 1;
  int cores = 2;
  // The number of peers of each kind. All peers together make `load` times as many calls as the server can answer, at
  // random times. Greedy peers make ten times as many as the others. Slow ones take a hundred times as long to send;
  // silent ones send nothing after the headers; deaf ones never read a result; dying ones vanish with all their calls,
  // and return.
  int honest = 8, greedy = 1, slow = 1, silent = 1, deaf = 1, dying = 1;
  double load = 2;
  double deadline_seconds = 1;
  double message_seconds = 0.001;  // time to receive one message alone
  double compute_seconds = 0.002;  // core time of a call, on average
  std::int64_t message_bytes = 4 << 20;
  std::int64_t total_bytes = std::int64_t{1} << 30;
  double stall_seconds = 2;         // after it, a result that is not read ends its call
  int places = 0;                   // messages received at once; 0: the server's default
  std::int64_t events = 1'000'000;  // then the server stops: no more calls begin
};

struct OverloadResult {
  std::string wrong;  // the first violated invariant; empty: none
  std::int64_t calls = 0, answered = 0, refused_at_headers = 0, refused_later = 0, expired = 0, cancelled = 0,
               stalled = 0;
  double seconds = 0;          // model time until the stop
  double goodput = 0;          // calls answered in time, as a fraction of the capacity
  double least_answered = 0;   // fraction of its calls, for the honest peer that fared worst
  double honest_answered = 0;  // fraction of all honest peers' calls
  double stop_seconds = 0;     // model time from the stop until nothing was left
  double us_per_event = 0;     // real time of the process
};

// Runs the model to its end. After each event it checks that bytes, places and cores are within their bounds, that no
// core is idle while work waits, and that nothing is answered after its deadline; at the end, that every call has ended
// in exactly one way and nothing is still held.
OverloadResult RunOverload(const OverloadOptions& options);

}  // namespace attnd::bench
