#include "server/attention/admission.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/status.h"

namespace attnd::server {

absl::StatusOr<memory::Budget::Lease> Admission::Admit(std::int64_t bytes) {
  if (std::optional<memory::Budget::Lease> lease = budget_.Take(bytes)) return *std::move(lease);
  return FieldError(absl::StatusCode::kResourceExhausted, "request",
                    absl::StrCat("at most ", budget_.max_bytes(), " bytes in flight (--max_inflight_bytes)"),
                    absl::StrCat(bytes, " bytes beside the ", budget_.used_bytes(), " of other calls"));
}

}  // namespace attnd::server
