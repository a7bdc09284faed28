// One attention problem as work for the scheduler.
#pragma once

#include <cstdint>
#include <memory>

#include "kernel/attention.h"
#include "kernel/registry.h"
#include "schedule/attention_plan.h"
#include "schedule/work.h"

namespace attnd::schedule {

// All memory that a work of this plan takes, to the byte, so that it can be admitted before it is allocated: at most
// max(kWindowBytes, what the largest unit takes), some 200 bytes for each of at most kMaxSlots open units, and 12 for
// each batch entry where they differ. Threads' arenas are not in it.
std::int64_t AttentionWorkBytes(const AttentionPlan& plan);

// The items of `plan`, which is of `attention` but for outputs and bias, and what they compute. Copies both; what they
// point at (bias, lengths, segments, tensors) is borrowed until the work is destroyed. Every bit of the result depends
// on the problem and the kernel alone, not on how many threads run it nor on what else runs.
//
// Allocates AttentionWorkBytes(plan), uninitialised, and nothing later; returns null if that fails.
std::unique_ptr<Work> MakeAttentionWork(const kernel::Attention& attention, const AttentionPlan& plan);

// The same with a plan made for it.
std::unique_ptr<Work> MakeAttentionWork(const kernel::Attention& attention, const kernel::Kernel& kernel);

}  // namespace attnd::schedule
