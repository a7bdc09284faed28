// One attention problem as work for the scheduler.
#pragma once

#include <memory>

#include "kernel/attention.h"
#include "kernel/registry.h"
#include "schedule/work.h"

namespace attnd::schedule {

// Cuts `attention` into items: packing K and V once per (batch, key head), (batch, head, query tile) tiles, key splits
// for short queries, and their merging. Copies the struct; what it points at (bias, lengths, segments, tensors) is
// borrowed until the work is destroyed. The cut, and so every bit of the result, depends on the problem and the kernel
// alone, not on how many threads run it nor on what else runs.
//
// Packed K and V are allocated here (uninitialised); returns null if that fails.
std::unique_ptr<Work> MakeAttentionWork(const kernel::Attention& attention, const kernel::Kernel& kernel);

}  // namespace attnd::schedule
