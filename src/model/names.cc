#include "model/names.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "errors/field_error.h"
#include "errors/shown.h"

namespace attnd::model {
namespace {

constexpr std::size_t kMaxName = 128;
constexpr std::size_t kMaxQuoted = 200;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

bool IsPartOfName(std::string_view part) {
  return !part.empty() && part.front() != '.' && std::all_of(part.begin(), part.end(), IsNameCharacter);
}

// A layer's number in canonical form: no sign, no leading zero, at most 4 digits.
bool IsLayer(std::string_view text) {
  if (text.empty() || text.size() > 4 || (text.size() > 1 && text.front() == '0')) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
}

}  // namespace

absl::Status CheckModelName(std::string_view name) {
  const std::size_t slash = name.find('/');
  const bool valid = name.size() <= kMaxName && IsPartOfName(name.substr(0, slash)) &&
                     (slash == std::string_view::npos || IsPartOfName(name.substr(slash + 1)));
  if (valid) return absl::OkStatus();
  return errors::InvalidField(
      "model",
      "1 to 128 letters, digits, '_', '-' and '.', not starting with '.', or two such parts with a '/' between",
      Quoted(name));
}

absl::Status CheckTableName(std::string_view name) {
  if (name == "decoder" || name == "encoder" || !SharedTableName(name).empty()) return absl::OkStatus();
  return errors::InvalidField("table.name", "decoder, encoder, decoder.N or encoder.N", Quoted(name));
}

std::string_view SharedTableName(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || !IsLayer(name.substr(dot + 1))) return {};
  const std::string_view shared = name.substr(0, dot);
  return shared == "decoder" || shared == "encoder" ? shared : std::string_view();
}

absl::StatusOr<std::string> NormalizePath(std::string_view path) {
  if (path.find('\0') != std::string_view::npos) {
    return errors::InvalidField("path", "no NUL in it", Quoted(path));
  }
  if (!path.empty() && path.front() == '/') {
    return errors::FieldError(absl::StatusCode::kPermissionDenied, "path", "one relative to the model root",
                              Quoted(path));
  }
  std::vector<absl::string_view> parts;
  for (const absl::string_view part : absl::StrSplit(View(path), '/', absl::SkipEmpty())) {
    if (part == "..") {
      return errors::FieldError(absl::StatusCode::kPermissionDenied, "path", "one within the model root", Quoted(path));
    }
    if (part != ".") parts.push_back(part);
  }
  if (path.empty()) return errors::InvalidField("path", "the name of a file or folder", Quoted(path));
  if (parts.empty()) return std::string(".");
  return absl::StrJoin(parts, "/");
}

std::string Stem(std::string_view path) {
  std::string name(path.substr(path.rfind('/') + 1));
  for (const absl::string_view ending : {".gguf", ".json"}) {
    if (absl::EndsWith(name, ending)) return name.substr(0, name.size() - ending.size());
  }
  return name;
}

bool IsFurtherShard(std::string_view path) {
  // "-00002-of-00003.gguf"
  constexpr std::string_view kPattern = "-#####-of-#####.gguf";
  if (path.size() < kPattern.size()) return false;
  const std::string_view ending = path.substr(path.size() - kPattern.size());
  for (std::size_t i = 0; i < ending.size(); ++i) {
    const bool fits =
        kPattern[i] == '#' ? absl::ascii_isdigit(static_cast<unsigned char>(ending[i])) : ending[i] == kPattern[i];
    if (!fits) return false;
  }
  return ending.substr(1, 5) != "00001";
}

std::string Quoted(std::string_view text) {
  const absl::string_view whole = View(text);
  const absl::string_view kept = errors::CutAtCharacter(whole, kMaxQuoted);
  return absl::StrCat("\"", absl::CHexEscape(kept), kept.size() < whole.size() ? "..." : "", "\"");
}

}  // namespace attnd::model
