#include "files/python_json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace attnd::files {
namespace {

// Numbers that stand for words the parser does not know. They are numbers so that they are refused as keys, and have
// exponents that nobody writes.
struct Word {
  absl::string_view word;
  absl::string_view number;
  double value;
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::array<Word, 3> kWords = {{{"NaN", "0.0e-918273645", std::numeric_limits<double>::quiet_NaN()},
                                         {"Infinity", "0.0e-918273646", kInfinity},
                                         {"-Infinity", "0.0e-918273647", -kInfinity}}};
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

class PythonBuilder final : public JsonBuilder {
 public:
  using JsonBuilder::JsonBuilder;

 private:
  double Float(double value, const std::string& text) override {
    for (const Word& word : kWords) {
      if (text == word.number) return word.value;
    }
    return value;
  }
};

bool IsOfNumber(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '+';
}

// Whether `text` is a number in JSON's grammar. Needed for numbers that the parser refuses because they are too large.
bool IsNumber(absl::string_view text) {
  const auto digits = [&text] {
    const auto end = std::find_if_not(text.begin(), text.end(),
                                      [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
    const auto count = static_cast<std::size_t>(end - text.begin());
    text.remove_prefix(count);
    return count;
  };
  const auto take = [&text](char c) {
    const bool taken = !text.empty() && text.front() == c;
    if (taken) text.remove_prefix(1);
    return taken;
  };
  take('-');
  const bool zero = !text.empty() && text.front() == '0';
  const std::size_t whole = digits();
  if (whole == 0 || (zero && whole > 1)) return false;
  if (take('.') && digits() == 0) return false;
  if (take('e') || take('E')) {
    if (!take('-')) take('+');
    if (digits() == 0) return false;
  }
  return text.empty();
}

// `token`, a run of characters of numbers and words, in a form that the parser accepts.
std::string Token(absl::string_view token) {
  for (const Word& word : kWords) {
    if (token == word.word) return std::string(word.number);
  }
  double value = 0;
  if (IsNumber(token) && absl::SimpleAtod(token, &value) && std::isinf(value)) {
    return std::string(kWords[value > 0 ? 1 : 2].number);
  }
  return std::string(token);
}

// The UTF-16 unit of a \u escape at the beginning of `text`; 0 if there is none.
unsigned Unit(absl::string_view text) {
  unsigned unit = 0;
  if (text.size() < 6 || !absl::StartsWith(text, "\\u")) return 0;
  return absl::SimpleHexAtoi(text.substr(2, 4), &unit) && text[2] != '0' ? unit : 0;
}

// Copies the escape at the beginning of `text` to `out`, and returns its size in `text`. Half of a surrogate pair alone
// becomes U+FFFD.
std::size_t CopyEscape(absl::string_view text, std::string& out) {
  const unsigned unit = Unit(text);
  const bool high = unit >= 0xD800 && unit < 0xDC00;
  const bool low = unit >= 0xDC00 && unit < 0xE000;
  const unsigned next = high ? Unit(text.substr(6)) : 0;
  if (low || (high && (next < 0xDC00 || next >= 0xE000))) {
    absl::StrAppend(&out, "\\uFFFD");
    return 6;
  }
  const absl::string_view whole = text.substr(0, high ? 12 : 2);
  absl::StrAppend(&out, whole);
  return whole.size();
}

// `text` rewritten, with the same meaning, for the parser. Only words, large numbers and escapes change; the parser
// decides whether the rest is JSON.
std::string AsParserTakesIt(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  while (!text.empty()) {
    std::size_t size = 1;
    if (in_string && text.front() == '\\') {
      size = CopyEscape(text, out);
    } else if (!in_string && IsOfNumber(text.front())) {
      size = static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), IsOfNumber) - text.begin());
      absl::StrAppend(&out, Token(text.substr(0, size)));
    } else {
      in_string = in_string != (text.front() == '"');
      out.push_back(text.front());
    }
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace

absl::StatusOr<JsonDocument> ParsePythonJson(std::string_view text, int max_depth, DuplicateKeys duplicate_keys) {
  const absl::string_view view(text.data(), text.size());
  if (absl::StartsWith(view, kByteOrderMark)) {
    return absl::InvalidArgumentError("not JSON as Python reads it: begins with a byte-order mark");
  }
  PythonBuilder builder(max_depth, duplicate_keys);
  absl::StatusOr<JsonDocument> json = builder.Parse(AsParserTakesIt(view));
  if (json.ok()) return json;
  return absl::InvalidArgumentError(absl::StrCat("not JSON as Python reads it: ", json.status().message()));
}

}  // namespace attnd::files
