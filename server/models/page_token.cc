#include "server/models/page_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

constexpr absl::string_view kPrefix = "after:";

}  // namespace

std::string MakePageToken(absl::string_view last_name) {
  return absl::WebSafeBase64Escape(absl::StrCat(kPrefix, last_name));
}

absl::StatusOr<std::string> ParsePageToken(absl::string_view token) {
  if (token.empty()) return std::string();
  std::string text;
  absl::string_view name;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    name = text;
    if (absl::ConsumePrefix(&name, kPrefix) && !name.empty() && MakePageToken(name) == token) return std::string(name);
  }
  return InvalidField("page_token", "next_page_token of an earlier page, or nothing", token);
}

}  // namespace attnd::server
