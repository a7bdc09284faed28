#include "client/attnctl/field_words.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace attnd::ctl {
namespace {

constexpr char kAttention[] = "ComputeAttentionRequest";

bool IsWordByte(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// The end of the word or path ("table.t5.values") that begins at `at`.
std::size_t EndOfWord(absl::string_view text, std::size_t at) {
  const auto word_at = [text](std::size_t i) { return i < text.size() && IsWordByte(text[i]); };
  while (word_at(at) || (at < text.size() && text[at] == '.' && word_at(at + 1))) ++at;
  return at;
}

const FieldWords* Find(absl::string_view message, absl::string_view field) {
  for (const FieldWords& entry : AllFieldWords()) {
    if (message == entry.message && field == entry.field) return &entry;
  }
  return nullptr;
}

// The words for a name in an error's text; nullopt: the name stays. English words that are also fields ("heads", "a
// table") must stay, so only names with an underscore or a dot are looked up.
std::optional<std::string> WordsOf(absl::string_view message, absl::string_view name) {
  for (const EnumWords& entry : AllEnumWords()) {
    if (name == entry.name) return entry.words;
  }
  const FieldWords* entry = name.find_first_of("_.") == absl::string_view::npos ? nullptr : Find(message, name);
  if (entry == nullptr) return std::nullopt;
  return entry->words == nullptr ? absl::StrReplaceAll(name, {{"_", " "}}) : entry->words;
}

// Replaces names of fields and enums in `text`. A "--max_dim" in it is a flag of the server.
std::string Reworded(absl::string_view message, absl::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (!IsWordByte(text[at])) {
      if (absl::StartsWith(text.substr(at), "--") && at + 2 < text.size() && IsWordByte(text[at + 2])) {
        absl::StrAppend(&out, "attnd's --");
        at += 2;
      } else {
        out += text[at++];
      }
      continue;
    }
    const std::size_t end = EndOfWord(text, at);
    const absl::string_view word = text.substr(at, end - at);
    absl::StrAppend(&out, WordsOf(message, word).value_or(std::string(word)));
    at = end;
  }
  return out;
}

// Removes alternatives that this command line does not have, such as the second one of "8, or first_head to be set".
std::string WithoutUnset(absl::string_view message, absl::string_view expected) {
  std::vector<absl::string_view> kept;
  for (const absl::string_view clause : absl::StrSplit(expected, ", or ")) {
    const std::vector<absl::string_view> words = absl::StrSplit(clause, absl::ByAnyChar(" ,()"), absl::SkipEmpty());
    const bool unset = std::any_of(words.begin(), words.end(), [message](absl::string_view word) {
      const FieldWords* entry = Find(message, word);
      return entry != nullptr && entry->words == nullptr;
    });
    if (!unset || kept.empty()) kept.push_back(clause);
  }
  return absl::StrJoin(kept, ", or ");
}

}  // namespace

const std::vector<EnumWords>& AllEnumWords() {
  static const auto* const all = new std::vector<EnumWords>{
      {"DTYPE_FP32", "F32"},
      {"DTYPE_FP16", "F16"},
      {"DTYPE_BF16", "BF16"},
      {"MASK_CAUSAL", "causal"},
      {"MASK_NONE", "none"},
      {"BIAS_NONE", "--bias none"},
      {"LAYOUT_BATCH_HEAD_SEQUENCE_DIM", "bhsd"},
      {"LAYOUT_BATCH_SEQUENCE_HEAD_DIM", "bshd"},
      {"PRODUCT_PRECISION_FP32", "fp32"},
      {"PRODUCT_PRECISION_BF16", "bf16"},
  };
  return *all;
}

std::string InWords(absl::string_view message, const ErrorDetail& detail) {
  const std::size_t index = detail.field.find('[');
  const std::string path = detail.field.substr(0, index);
  const FieldWords* entry = Find(message, path);
  const bool of_list = index != std::string::npos && (entry == nullptr || entry->list);
  const std::string element = of_list ? detail.field.substr(index) : "";
  const bool known = entry != nullptr && entry->words != nullptr;
  return absl::StrCat(known ? absl::StrCat(entry->words, element) : absl::StrCat(Reworded(message, path), element),
                      ": expected ", Reworded(message, WithoutUnset(message, detail.expected)), ", got ",
                      WordsOf("", detail.got).value_or(detail.got));
}

bool IsAboutAxes(absl::string_view message, const ErrorDetail& detail) {
  if (message != kAttention) return false;
  const FieldWords* entry = Find(message, detail.field);
  return entry != nullptr && entry->words != nullptr && absl::StartsWith(entry->words, "the axes");
}

}  // namespace attnd::ctl
