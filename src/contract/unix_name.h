// What a gRPC name of a Unix socket means, for the server that listens there, for the memory that is shared beside it,
// and for the client. gRPC's own server and client read some names differently (the server takes "unix://x/y" for /x/y
// and "?" for a character; the client refuses the first and ends the path at the second): those are no names here.
// Header-only, as the rest of the room.
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

// For messages: what a name of the unix scheme must be.
inline constexpr char kUnixNames[] =
    "unix:path or unix:///absolute/path, where %XX stands for a byte (%20 a space, %23 #, %25 %, %3F ?)";

inline bool IsUnixName(absl::string_view name) { return absl::StartsWith(name, "unix:"); }

// The path that a name of the unix scheme stands for; it may be relative. nullopt for other names and for those that
// gRPC's server and client would read differently.
inline std::optional<std::string> UnixPath(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "unix:")) return std::nullopt;
  // What follows "//" up to the next "/" is a host in a URI, and a Unix socket has none.
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

// The spelling of a path that every gRPC client reads as that path.
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
