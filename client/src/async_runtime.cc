#include "client/src/async_runtime.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/time/clock.h"

namespace attnd::client {
namespace {

class Posted : public AsyncRuntime::Event {
 public:
  explicit Posted(std::function<void()> task) : task_(std::move(task)) {}
  void Start(AsyncRuntime& runtime, std::chrono::system_clock::time_point when = {}) {
    alarm_.Set(runtime.queue(), when, this);
  }
  void Run(bool /*ok*/) override {
    task_();
    delete this;
  }

 private:
  std::function<void()> task_;
  grpc::Alarm alarm_;
};

}  // namespace

AsyncRuntime& AsyncRuntime::Get() {
  static AsyncRuntime* const runtime = new AsyncRuntime();
  return *runtime;
}

AsyncRuntime::AsyncRuntime() {
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 2U, 8U);
  for (unsigned i = 0; i < threads; ++i) std::thread([this] { Work(); }).detach();
}

void AsyncRuntime::Work() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    static_cast<Event*>(tag)->Run(ok);
  }
}

void AsyncRuntime::Post(std::function<void()> task) { (new Posted(std::move(task)))->Start(*this); }

void AsyncRuntime::PostAfter(absl::Duration delay, std::function<void()> task) {
  (new Posted(std::move(task)))->Start(*this, absl::ToChronoTime(absl::Now() + delay));
}

}  // namespace attnd::client
