// What a gRPC name of a Unix socket means. Used by the server that listens on it, by the shared memory beside it, and
// by the client. gRPC's own server and client read some names differently: for "unix://x/y", the server takes /x/y and
// the client refuses; for a "?", the server takes it as a character and the client ends the path there. Such names are
// not accepted here. Header-only, like the rest of this room.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace attnd::contract {

// What a name of the unix scheme must be, for error messages.
inline constexpr char kUnixNames[] =
    "unix:path or unix:///absolute/path, where %XX stands for a byte (%20 a space, %23 #, %25 %, %3F ?)";

inline bool IsUnixName(absl::string_view name) { return absl::StartsWith(name, "unix:"); }

// The path of a name of the unix scheme; it may be relative. Returns nullopt for other names, and for names that gRPC's
// server and client read differently.
inline std::optional<std::string> UnixPath(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "unix:")) return std::nullopt;
  // In a URI, the text between "//" and the next "/" is a host; a Unix socket has none.
  if (absl::ConsumePrefix(&name, "//") && !absl::StartsWith(name, "/")) return std::nullopt;
  std::string path;
  for (std::size_t i = 0; i < name.size(); ++i) {
    char byte = name[i];
    if (byte == '%') {
      const absl::string_view digits = name.substr(i + 1, 2);
      const auto is_digit = [](char digit) { return absl::ascii_isxdigit(static_cast<unsigned char>(digit)); };
      if (digits.size() < 2 || !std::all_of(digits.begin(), digits.end(), is_digit)) return std::nullopt;
      byte = absl::HexStringToBytes(digits)[0];
      i += 2;
    } else if (byte == '?' || byte == '#') {
      return std::nullopt;
    }
    if (byte == '\0') return std::nullopt;
    path.push_back(byte);
  }
  return path;
}

// The spelling of `path` that every gRPC client reads as that path.
inline std::string UnixName(absl::string_view path) {
  std::string name = absl::StartsWith(path, "/") ? "unix://" : "unix:";
  for (const char byte : path) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(byte)) || absl::StrContains("/-._~", byte)) {
      name.push_back(byte);
    } else {
      absl::StrAppend(&name, "%", absl::Hex(static_cast<unsigned char>(byte), absl::kZeroPad2));
    }
  }
  return name;
}

}  // namespace attnd::contract
