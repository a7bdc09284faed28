// The bias of a window as JSON.
#pragma once

#include <string>

#include "attnd/models.h"

namespace attnd::ctl {

// In both functions, `reply` must answer `request` and have as many cells as its window. Masked cells are null.

// Arrays of [query, key]; with `all_heads` the values are [head, query, key].
std::string WindowJson(const BiasRequest& request, const BiasReply& reply, bool all_heads);

// The bias of a window of one cell, with the value of each head.
std::string CellJson(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
