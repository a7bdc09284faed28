// The location of a request's tensors: in its message, or in memory that the caller shares.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "attnd/v1/attention.pb.h"
#include "kernel/attention.h"
#include "server/attention/shapes.h"
#include "server/shm/shared_memory.h"
#include "server/wire/codec.h"

namespace attnd::server {

// A request's tensors in shared memory. A part whose region is null is not shared.
struct SharedParts {
  struct Part {
    SharedBytes bytes;
    kernel::Segment segment;  // the same bytes
  };
  Part q, k, v;
  SharedBytes output;
  SharedBytes log_sum_exp;
};

// Locates the tensors of one request. Each function's errors name the field, or "<field>_shared": INVALID_ARGUMENT, and
// FAILED_PRECONDITION for shared memory that this server does not know. Thread-compatible.
class TensorPlaces {
 public:
  // `memory` is null if callers cannot share memory. `parts` starts as null and is created once a tensor is shared;
  // views then point into it. Both are borrowed.
  TensorPlaces(v1::Layout layout, const SharedMemory* memory, std::shared_ptr<SharedParts>& parts)
      : layout_(layout), memory_(memory), parts_(parts) {}

  // Fills in `view` of q, k or v, except for its dtype, which must be set. `shared` is null if the tensor is in the
  // message.
  absl::Status Set(absl::string_view field, const TensorBytes& sent, const v1::SharedTensor* shared,
                   SharedParts::Part SharedParts::*part, const Shape& shape, kernel::TensorView& view);
  // Call after Set: the output must not overlap q, k and v, which are read while it is written.
  absl::Status SetOutput(const v1::SharedTensor& shared, std::int64_t bytes);
  // Call last: the log-sum-exp must not overlap the output either. `bytes` is 0 if no log-sum-exp was asked for.
  absl::Status SetLogSumExp(const v1::SharedTensor& shared, std::int64_t bytes);

 private:
  absl::Status CheckShares(absl::string_view field) const;
  SharedParts& Parts();

  const v1::Layout layout_;
  const SharedMemory* const memory_;
  std::shared_ptr<SharedParts>& parts_;
};

}  // namespace attnd::server
