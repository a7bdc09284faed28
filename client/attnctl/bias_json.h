// The bias of a window, for programs.
#pragma once

#include <string>

#include "attnd/models.h"

namespace attnd::ctl {

// In both `reply` must be the answer to `request`, with as many cells as its window has. Masked cells are null.

// Arrays of [query, key], or with `all_heads` [head, query, key] for the values.
std::string WindowJson(const BiasRequest& request, const BiasReply& reply, bool all_heads);

// Of a window of one cell, with the value of each head.
std::string CellJson(const BiasRequest& request, const BiasReply& reply);

}  // namespace attnd::ctl
