// The cost of admission per call.
#pragma once

namespace attnd::bench {

// `attnd_bench ledger`: CPU nanoseconds to take from a ledger and give back, with a known account and with the account
// looked up by name, for 1 to `nproc` threads. Returns the exit status.
int LedgerBench();

}  // namespace attnd::bench
