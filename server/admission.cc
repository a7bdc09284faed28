#include "server/admission.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/status.h"

namespace attnd::server {

absl::StatusOr<Admission::Ticket> Admission::Admit(std::int64_t bytes) {
  std::int64_t held = counts_->inflight_bytes.load(std::memory_order_relaxed);
  do {
    if (bytes > max_inflight_bytes_ - held) {
      return FieldError(absl::StatusCode::kResourceExhausted, "request",
                        absl::StrCat("at most ", max_inflight_bytes_, " bytes in flight (--max_inflight_bytes)"),
                        absl::StrCat(bytes, " bytes beside the ", held, " of other calls"));
    }
  } while (!counts_->inflight_bytes.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  RaisePeak(held + bytes);
  return Ticket(counts_, bytes);
}

void Admission::RaisePeak(std::int64_t held) {
  std::int64_t peak = counts_->peak_bytes.load(std::memory_order_relaxed);
  while (peak < held && !counts_->peak_bytes.compare_exchange_weak(peak, held, std::memory_order_relaxed)) {
  }
}

std::int64_t Admission::TakePeakBytes() {
  const std::int64_t peak = counts_->peak_bytes.exchange(0, std::memory_order_relaxed);
  RaisePeak(
      counts_->inflight_bytes.load(std::memory_order_relaxed));  // what is in flight now counts for the next time too
  return peak;
}

}  // namespace attnd::server
