#include "client/attnctl/usage.h"

#include <cstddef>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace attnd::ctl {
namespace {

// Payload URLs of a status: the mark of a usage error, and advice.
constexpr char kUsageUrl[] = "attnctl/usage";
constexpr char kAdviceUrl[] = "attnctl/advice";

}  // namespace

absl::Status UsageError(const std::string& message, const std::string& advice) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsageUrl, absl::Cord());
  return WithAdvice(status, advice);
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsageUrl).has_value(); }

absl::Status WithAdvice(absl::Status status, const std::string& advice) {
  if (!status.ok() && !advice.empty()) status.SetPayload(kAdviceUrl, absl::Cord(advice));
  return status;
}

std::string AdviceOf(const absl::Status& status) {
  const absl::optional<absl::Cord> advice = status.GetPayload(kAdviceUrl);
  return advice.has_value() ? std::string(*advice) : "";
}

std::string Shown(const std::string& text) {
  constexpr std::size_t kLongest = 60;
  if (text.empty()) return "an empty value";
  std::size_t size = text.size();
  if (size > kLongest) {
    size = kLongest;
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;  // not inside a character
  }
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(text.substr(0, size)), size < text.size() ? "..." : "", "\"");
}

}  // namespace attnd::ctl
