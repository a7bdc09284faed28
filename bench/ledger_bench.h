// What admission costs a call.
#pragma once

namespace attnd::bench {

// `attnd_bench ledger`: nanoseconds of the CPU for taking from a ledger and giving back, for a known account and with
// the account looked up by its name, for 1 to `nproc` threads. Exit status.
int LedgerBench();

}  // namespace attnd::bench
