// Measures several things in turns, so that a slow phase of the machine affects all of them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "wire_server.h"

namespace attnd::bench {

[[noreturn]] inline void Die(const absl::Status& status) {
  std::cerr << "attnd_bench: " << status << std::endl;
  std::exit(1);
}

inline double MillisecondsOf(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// The times of one thing, collected in turns.
class Series {
 public:
  void Turn(double seconds, const std::function<void()>& body) {
    TurnOf(seconds, [&] { return MillisecondsOf(body); });
  }
  // The same with a body that returns how long it took.
  void TurnOf(double seconds, const std::function<double()>& body) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    do {
      times_.push_back(body());
    } while (std::chrono::steady_clock::now() < end);
  }
  void Add(double milliseconds) { times_.push_back(milliseconds); }
  void Add(const Series& other) { times_.insert(times_.end(), other.times_.begin(), other.times_.end()); }
  double At(double fraction) {
    std::sort(times_.begin(), times_.end());
    return times_[static_cast<std::size_t>(fraction * static_cast<double>(times_.size() - 1))];
  }
  std::size_t count() const { return times_.size(); }

 private:
  std::vector<double> times_;
};

// A problem without a wire: runs attnd_bench kernel, which has attnd's allocator, as a separate process.
class KernelAlone {
 public:
  // `flags`: those that describe the problem.
  KernelAlone(const std::string& binary, const std::vector<std::string>& flags, int cpu) {
    std::vector<std::string> argv = {binary, "kernel", "--turns"};
    argv.insert(argv.end(), flags.begin(), flags.end());
    absl::StatusOr<std::unique_ptr<ChildProcess>> process = ChildProcess::Start(argv, cpu);
    if (!process.ok()) Die(process.status());
    process_ = *std::move(process);
  }

  // Adds the times of a turn to `times`; returns its CPU time in milliseconds.
  double Turn(double seconds, Series& times) {
    process_->WriteLine(absl::StrCat(seconds));
    const absl::StatusOr<std::string> line = process_->ReadLine();
    if (!line.ok()) Die(line.status());
    const nlohmann::json turn = nlohmann::json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (turn.is_discarded()) Die(absl::InternalError(*line));
    for (const double milliseconds : turn["ms"]) times.Add(milliseconds);
    return turn["cpu_ms"];
  }

 private:
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace attnd::bench
