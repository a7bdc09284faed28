// The attention formula as a plain loop in double precision: the oracle that every kernel is tested against.
#pragma once

#include "kernel/attention.h"

namespace attnd::kernel {

// Computes attention.h's formula. Takes every feature that the kernels take; slow, single-threaded, allocates one row
// of logits. `out` ([batch, heads, query_length, value_head_dim] row-major) and `log_sum_exp` ([batch, heads,
// query_length]; may be null) get the results before any rounding; attention.out and attention.log_sum_exp are not
// touched.
//
// A row's result depends on the keys that it sees alone. Rows that see no key, or only keys with a logit of -inf, give
// zeros and a log-sum-exp of -inf; a NaN or +inf among the logits a row sees makes the row NaN.
void Reference(const Attention& attention, double* out, double* log_sum_exp);

// The bias of `head` at `offset`, the head's constant included.
double BiasAt(const BiasView& bias, std::int64_t head, std::int64_t offset);

// One element of a tensor, whatever its dtype, segments and pages.
double ElementAt(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row, std::int64_t column);

}  // namespace attnd::kernel
