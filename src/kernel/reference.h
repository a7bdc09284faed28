// The attention formula as a plain loop in double precision: the oracle that every kernel is tested against.
#pragma once

#include "kernel/attention.h"

namespace attnd::kernel {

// Computes attention.h's formula with every feature that the kernels have. Slow and single-threaded; allocates one
// head's queries, keys and values in double precision and one row of logits. `out` ([batch, heads, query_length,
// value_head_dim] row-major) and `log_sum_exp` ([batch, heads, query_length]; may be null) receive the unrounded
// results; attention.out and attention.log_sum_exp are not touched.
//
// A row's result depends only on the keys that it sees. Rows that see no key, or only keys with a logit of -inf, give
// zeros and a log-sum-exp of -inf; a NaN or +inf among the logits that a row sees makes the row NaN.
void Reference(const Attention& attention, double* out, double* log_sum_exp);

// The bias of `head` at `offset`, including the head's constant.
double BiasAt(const BiasView& bias, std::int64_t head, std::int64_t offset);

// One element of a tensor of any dtype, in segments or pages.
double ElementAt(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t column);

}  // namespace attnd::kernel
