#include "ledger_bench.h"

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "memory/ledger.h"

namespace attnd::bench {
namespace {

constexpr int kCalls = 2'000'000;

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// CPU nanoseconds per call while `threads` call at once; the best of five rounds. CPU time instead of wall time, so
// that other processes matter less.
template <typename Call>
double Best(int threads, Call call) {
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    const double start = CpuSeconds();
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t) {
      running.emplace_back([&call, t] {
        for (int i = 0; i < kCalls; ++i) call(t);
      });
    }
    for (std::thread& thread : running) thread.join();
    best = std::min(best, 1e9 * (CpuSeconds() - start) / threads / kCalls);
  }
  return best;
}

}  // namespace

int LedgerBench() {
  memory::Ledger ledger({.total = std::int64_t{1} << 40});
  const int most = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::printf("threads  take_and_give_back_ns  with_the_account_looked_up_ns\n");
  for (int threads = 1; threads <= most; threads *= 2) {
    std::vector<std::shared_ptr<memory::Account>> accounts;
    std::vector<std::string> names;
    for (int t = 0; t < threads; ++t) names.push_back("192.0.2." + std::to_string(t));
    for (const std::string& name : names) accounts.push_back(ledger.AccountOf(name));
    const double known =
        Best(threads, [&](int t) { const auto taken = ledger.Take(accounts[static_cast<std::size_t>(t)], 1 << 20); });
    const double looked_up = Best(threads, [&](int t) {
      const auto taken = ledger.Take(ledger.AccountOf(names[static_cast<std::size_t>(t)]), 1 << 20);
    });
    std::printf("%7d  %21.0f  %29.0f\n", threads, known, looked_up);
  }
  return ledger.used_bytes() == 0 ? 0 : 1;
}

}  // namespace attnd::bench
