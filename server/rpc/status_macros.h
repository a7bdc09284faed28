// Macros that return early on errors.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ATTND_CONCAT_INNER(a, b) a##b
#define ATTND_CONCAT(a, b) ATTND_CONCAT_INNER(a, b)

// Returns from the enclosing function if `expression`, an absl::Status, is an error.
#define ATTND_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status attnd_status = (expression); !attnd_status.ok()) return attnd_status; \
  } while (false)

// Assigns the value of `expression`, an absl::StatusOr, to `target` (which may be a declaration), or returns its error.
#define ATTND_ASSIGN_OR_RETURN(target, expression) \
  ATTND_ASSIGN_OR_RETURN_INNER(ATTND_CONCAT(attnd_status_or_, __LINE__), target, expression)
#define ATTND_ASSIGN_OR_RETURN_INNER(holder, target, expression) \
  auto holder = (expression);                                    \
  if (!holder.ok()) return std::move(holder).status();           \
  target = *std::move(holder)
