#include "attention/held_kernel.h"

#include <atomic>

#include "gtest/gtest.h"
#include "kernel/registry.h"

namespace attnd::server {
namespace {

constexpr absl::Duration kSlowStep = absl::Milliseconds(40);

// Kernels are plain functions, so what they call stands here.
std::atomic<HeldKernel*> g_current{nullptr};

// Found once: a test may put a HeldKernel in front of the kernels.
const kernel::Kernel& Best() {
  static const kernel::Kernel& best = *kernel::AvailableKernels().front();
  return best;
}

}  // namespace

HeldKernel::HeldKernel() : kernel_(Best()) {
  EXPECT_EQ(g_current.exchange(this), nullptr) << "another HeldKernel lives";
  kernel_.advance = [](const kernel::Attention& attention, const kernel::RowTile& tile,
                       const kernel::PackedHead& packed, std::int64_t first_key, std::int64_t last_key,
                       kernel::Ahead& ahead, std::byte* state, std::byte* scratch) {
    g_current.load()->BeforeStep();
    Best().advance(attention, tile, packed, first_key, last_key, ahead, state, scratch);
  };
}

HeldKernel::~HeldKernel() { g_current.store(nullptr); }

void HeldKernel::SetMode(Mode mode) {
  absl::MutexLock lock(&mutex_);
  mode_ = mode;
  held_thread_ = std::nullopt;
}

void HeldKernel::HoldTheLastThread() {
  absl::MutexLock lock(&mutex_);
  mode_ = Mode::kHeld;
  held_thread_ = last_thread_;
}

void HeldKernel::BeforeStep() {
  absl::MutexLock lock(&mutex_);
  ++steps_;
  if (mode_ == Mode::kHeld && held_thread_.has_value() && held_thread_ != std::this_thread::get_id()) return;
  last_thread_ = std::this_thread::get_id();
  ++held_;
  const auto not_held = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return mode_ != Mode::kHeld; };
  mutex_.Await(absl::Condition(&not_held));
  --held_;
  const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return mode_ == Mode::kFree; };
  mutex_.AwaitWithTimeout(absl::Condition(&is_free), kSlowStep);
}

bool HeldKernel::AwaitHeld() {
  absl::MutexLock lock(&mutex_);
  const auto held = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return mode_ == Mode::kHeld && held_ > 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&held), kPatience);
}

bool HeldKernel::is_held() const {
  absl::MutexLock lock(&mutex_);
  return mode_ == Mode::kHeld && held_ > 0;
}

std::int64_t HeldKernel::steps() const {
  absl::MutexLock lock(&mutex_);
  return steps_;
}

}  // namespace attnd::server
