// Whether text is an XML document of what our writers use: elements, attributes, text, the five entities and numbers.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "check.h"

namespace attnd::fuzz {

// A character that XML 1.0 allows, in UTF-8; its length in bytes, 0 if there is none at the front.
inline std::size_t XmlCharacter(absl::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[i])); };
  const unsigned first = byte(0);
  if (first < 0x80) return first >= 0x20 || first == '\t' || first == '\n' || first == '\r' ? 1 : 0;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  unsigned code = first & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  const unsigned least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const bool allowed =
      code >= least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) && code != 0xfffe && code != 0xffff;
  return allowed ? length : 0;
}

// Characters and entities, without '<'.
inline void CheckXmlText(absl::string_view text) {
  while (!text.empty()) {
    Check(text[0] != '<', "no '<' in text or in an attribute");
    if (text[0] == '&') {
      const std::size_t end = text.find(';');
      Check(end != absl::string_view::npos && end <= 10, "an entity ends");
      const absl::string_view name = text.substr(1, end - 1);
      bool known = false;
      for (const absl::string_view entity : {"amp", "lt", "gt", "quot", "apos"}) known = known || name == entity;
      Check(known || absl::StartsWith(name, "#"), "an entity of XML's");
      text.remove_prefix(end + 1);
      continue;
    }
    const std::size_t length = XmlCharacter(text);
    Check(length > 0, "a character that XML allows");
    text.remove_prefix(length);
  }
}

// Attributes as name="value" or name='value'.
inline void CheckXmlAttributes(absl::string_view text) {
  while (!(text = absl::StripLeadingAsciiWhitespace(text)).empty()) {
    const std::size_t equals = text.find('=');
    Check(equals != absl::string_view::npos && equals > 0 && equals + 1 < text.size(), "an attribute has a value");
    Check(text.substr(0, equals).find_first_of(" \t\n<\"'") == absl::string_view::npos, "an attribute has one name");
    const char quote = text[equals + 1];
    Check(quote == '"' || quote == '\'', "a value is quoted");
    const std::size_t end = text.find(quote, equals + 2);
    Check(end != absl::string_view::npos, "a value ends");
    CheckXmlText(text.substr(equals + 2, end - equals - 2));
    text.remove_prefix(end + 1);
  }
}

inline void CheckXml(absl::string_view text) {
  std::vector<std::string> open;
  bool any = false;
  while (!text.empty()) {
    const std::size_t tag = text.find('<');
    const absl::string_view before = text.substr(0, tag);
    CheckXmlText(before);
    if (open.empty()) Check(absl::StripAsciiWhitespace(before).empty(), "no text outside of the root");
    if (tag == absl::string_view::npos) break;
    text.remove_prefix(tag + 1);
    // The end of the tag, past quoted values.
    char quote = 0;
    std::size_t end = 0;
    while (end < text.size() && (quote != 0 || text[end] != '>')) {
      if (quote != 0) {
        if (text[end] == quote) quote = 0;
      } else if (text[end] == '"' || text[end] == '\'') {
        quote = text[end];
      }
      ++end;
    }
    Check(end < text.size(), "a tag ends");
    absl::string_view inside = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (absl::StartsWith(inside, "?xml") || absl::StartsWith(inside, "!DOCTYPE")) continue;
    if (absl::StartsWith(inside, "/")) {
      Check(!open.empty() && open.back() == inside.substr(1), "an end tag closes what is open");
      open.pop_back();
      continue;
    }
    const bool closed = absl::EndsWith(inside, "/");
    if (closed) inside.remove_suffix(1);
    const std::size_t space = inside.find_first_of(" \t\n");
    const absl::string_view name = inside.substr(0, space);
    Check(!name.empty(), "an element has a name");
    Check(!open.empty() || !any, "one root");
    any = true;
    if (space != absl::string_view::npos) CheckXmlAttributes(inside.substr(space));
    if (!closed) open.emplace_back(name);
  }
  Check(any && open.empty(), "all elements are closed");
}

}  // namespace attnd::fuzz
