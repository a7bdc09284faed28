// One attention problem as a job for the scheduler.
#pragma once

#include <cstdint>
#include <memory>

#include "kernel/attention.h"
#include "kernel/registry.h"
#include "schedule/attention_plan.h"
#include "schedule/work.h"

namespace attnd::schedule {

// All memory that the job of this plan takes, to the byte, so that it can be reserved before it is allocated: at most
// max(kWindowBytes, what the largest unit takes), about 200 bytes for each of at most kMaxSlots open units, and 12 for
// each batch entry if they differ. Does not include the threads' arenas.
std::int64_t AttentionWorkBytes(const AttentionPlan& plan);

// The items of `plan`, and what they compute. The plan must be of `attention`, except for outputs and bias. Copies
// both; borrows what they point at (bias, lengths, segments, tensors) until the Work is destroyed. Every bit of the
// result depends on the problem and the kernel alone, not on the number of threads or on what else runs.
//
// Allocates AttentionWorkBytes(plan), uninitialised, and nothing later; returns null if that fails.
std::unique_ptr<Work> MakeAttentionWork(const kernel::Attention& attention, const AttentionPlan& plan);

// The same with a plan made here.
std::unique_ptr<Work> MakeAttentionWork(const kernel::Attention& attention, const kernel::Kernel& kernel);

}  // namespace attnd::schedule
