// Page tokens: the input is a token, and a name.
#include "server/models/page_token.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using attnd::fuzz::Check;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<std::string> name = attnd::server::ParsePageToken(text);
  if (name.ok()) {
    Check(name->empty() == text.empty(), "only the first page's token names no model");
    Check(text.empty() || attnd::server::MakePageToken(*name) == text, "a name has one token");
  } else {
    Check(absl::IsInvalidArgument(name.status()), "a bad token is INVALID_ARGUMENT");
    Check(name.status().message().size() < 1000, "a refusal is short");
  }
  if (text.empty()) return 0;
  const absl::StatusOr<std::string> again = attnd::server::ParsePageToken(attnd::server::MakePageToken(text));
  Check(again.ok() && *again == text, "a name comes back from its token");
  return 0;
}
