#include "client/attnctl/usage.h"

#include "absl/strings/cord.h"

namespace attnd::ctl {
namespace {

// Marks a status as a usage error.
constexpr char kUsageUrl[] = "attnctl/usage";

}  // namespace

absl::Status UsageError(const std::string& message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsageUrl, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsageUrl).has_value(); }

}  // namespace attnd::ctl
