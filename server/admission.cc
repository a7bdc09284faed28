#include "server/admission.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/status.h"

namespace attnd::server {

absl::StatusOr<Admission::Ticket> Admission::Admit(std::int64_t bytes) {
  std::int64_t held = inflight_bytes_.load(std::memory_order_relaxed);
  do {
    if (bytes > max_inflight_bytes_ - held) {
      return FieldError(absl::StatusCode::kResourceExhausted, "request",
                        absl::StrCat("at most ", max_inflight_bytes_, " bytes in flight (--max_inflight_bytes)"),
                        absl::StrCat(bytes, " bytes beside the ", held, " of other calls"));
    }
  } while (!inflight_bytes_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  held += bytes;
  std::int64_t peak = peak_bytes_.load(std::memory_order_relaxed);
  while (peak < held && !peak_bytes_.compare_exchange_weak(peak, held, std::memory_order_relaxed)) {
  }
  return Ticket(this, bytes);
}

std::int64_t Admission::TakePeakBytes() {
  // A call that is in flight now counts for the next time too.
  return peak_bytes_.exchange(inflight_bytes_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

}  // namespace attnd::server
