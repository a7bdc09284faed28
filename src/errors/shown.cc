#include "errors/shown.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace attnd::errors {
namespace {

constexpr absl::string_view kCut = "...";

unsigned ByteAt(absl::string_view text, std::size_t i) { return static_cast<unsigned char>(text[i]); }

// Bytes of the UTF-8 character at the beginning of `text`; 0 if there is none.
std::size_t CharacterLength(absl::string_view text) {
  if (text.empty()) return 0;
  const unsigned first = ByteAt(text, 0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  // The second byte's range excludes overlong forms, surrogates, and code points beyond U+10FFFF.
  const unsigned lowest = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned highest = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (ByteAt(text, 1) < lowest || ByteAt(text, 1) > highest) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if ((ByteAt(text, i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::size_t Utf8Prefix(absl::string_view text) {
  std::size_t size = 0;
  while (const std::size_t length = CharacterLength(text.substr(size))) size += length;
  return size;
}

absl::string_view CutAtCharacter(absl::string_view text, std::size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  std::size_t size = 0;
  while (true) {
    const std::size_t next = size + std::max<std::size_t>(CharacterLength(text.substr(size)), 1);
    if (next > max_bytes) return text.substr(0, size);
    size = next;
  }
}

std::string Shown(absl::string_view text, std::size_t max_bytes) {
  std::string shown;
  std::size_t end_if_cut = 0;  // end of the last character that leaves room for kCut
  while (!text.empty()) {
    const std::size_t length = CharacterLength(text);
    const bool printable = length > 1 || (length == 1 && ByteAt(text, 0) >= 0x20 && ByteAt(text, 0) != 0x7f);
    const absl::string_view character = text.substr(0, std::max<std::size_t>(length, 1));
    const std::string as_shown =
        printable ? std::string(character) : absl::StrCat("\\x", absl::BytesToHexString(character));
    if (shown.size() + as_shown.size() > max_bytes) {
      return absl::StrCat(shown.substr(0, end_if_cut), kCut);
    }
    shown.append(as_shown);
    if (shown.size() + kCut.size() <= max_bytes) end_if_cut = shown.size();
    text.remove_prefix(character.size());
  }
  return shown;
}

}  // namespace attnd::errors
