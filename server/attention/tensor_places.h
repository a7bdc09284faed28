// Where a request's tensors are: in its message, or in memory that the caller shares.
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

// What a request has in shared memory. A part without a region is not shared.
struct SharedParts {
  struct Part {
    SharedBytes bytes;
    kernel::Segment segment;  // the same bytes
  };
  Part q, k, v;
  SharedBytes output;
  SharedBytes log_sum_exp;
};

// Finds the tensors of one request. Each function's errors name the field, or "<field>_shared": INVALID_ARGUMENT, and
// FAILED_PRECONDITION for shared memory that this server does not know. Thread-compatible.
class TensorPlaces {
 public:
  // `memory` is null if callers cannot share any. `parts` is null, and is made where something is shared; the views
  // point into it. Both are borrowed.
  TensorPlaces(v1::Layout layout, const SharedMemory* memory, std::shared_ptr<SharedParts>& parts)
      : layout_(layout), memory_(memory), parts_(parts) {}

  // Of q, k or v: `shared` is null where it is sent. Fills in `view` but for its dtype, which is given.
  absl::Status Set(absl::string_view field, const TensorBytes& sent, const v1::SharedTensor* shared,
                   SharedParts::Part SharedParts::*part, const Shape& shape, kernel::TensorView& view);
  // After q, k and v: an output over them would be written while these are read.
  absl::Status SetOutput(const v1::SharedTensor& shared, std::int64_t bytes);
  // Last, likewise. `bytes` is 0 where no log-sum-exp was asked for.
  absl::Status SetLogSumExp(const v1::SharedTensor& shared, std::int64_t bytes);

 private:
  absl::Status CheckShares(absl::string_view field) const;
  SharedParts& Parts();

  const v1::Layout layout_;
  const SharedMemory* const memory_;
  std::shared_ptr<SharedParts>& parts_;
};

}  // namespace attnd::server
