#include "bias/source_words.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bias/alibi.h"
#include "bias/random_values.h"
#include "errors/field_error.h"
#include "errors/shown.h"
#include "tensor/checked_size.h"

namespace attnd::bias {
namespace {

constexpr std::size_t kMaxLabel = 64;
constexpr std::int64_t kMaxHeads = 4096;
constexpr std::size_t kMaxDigits = 18;  // always fits std::int64_t

bool AllDigits(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return false;
  }
  return !text.empty();
}

std::string Quoted(absl::string_view text) { return absl::StrCat("\"", text, "\""); }

absl::StatusOr<std::int64_t> Whole(absl::string_view field, absl::string_view text) {
  const bool negative = absl::StartsWith(text, "-");
  const absl::string_view digits = text.substr(negative ? 1 : 0);
  std::int64_t value = 0;
  if (!AllDigits(digits) || digits.size() > kMaxDigits || !absl::SimpleAtoi(text, &value)) {
    return errors::InvalidField(field, absl::StrCat("a whole number of at most ", kMaxDigits, " digits"), Quoted(text));
  }
  return value;
}

// A number in JSON's grammar, except that the digits before or after the point may be missing.
bool LooksLikeANumber(absl::string_view text) {
  std::size_t at = absl::StartsWith(text, "-") ? 1 : 0, digits = 0;
  const auto skip = [&] {
    for (; at < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[at])); ++at) ++digits;
  };
  skip();
  if (at < text.size() && text[at] == '.') {
    ++at;
    skip();
  }
  if (digits == 0) return false;
  if (at == text.size()) return true;
  if (text[at] != 'e' && text[at] != 'E') return false;
  ++at;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
  return AllDigits(text.substr(at));
}

absl::StatusOr<std::vector<float>> Numbers(absl::string_view text) {
  std::vector<float> values;
  for (const absl::string_view word : absl::StrSplit(text, ',')) {
    double value = 0;
    if (!LooksLikeANumber(word) || !absl::SimpleAtod(word, &value) ||
        std::abs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
      return errors::InvalidField(absl::StrCat("values[", values.size(), "]"), "a number that a float holds",
                                  Quoted(word));
    }
    values.push_back(static_cast<float>(value));
  }
  return values;
}

// The text of a rule, parsed: "32,128,heads=8,seed=1" or "4,5@0.1,0.2,0.3,0.4".
struct RuleWords {
  std::vector<std::int64_t> sizes;
  bool bidirectional = false;
  std::optional<std::int64_t> heads, seed;
  std::optional<std::vector<float>> values;
};

// `fields`: the names of the sizes at the beginning.
absl::StatusOr<RuleWords> ReadRule(absl::string_view text, const std::vector<absl::string_view>& fields) {
  RuleWords rule;
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('@', 1));
  const std::vector<absl::string_view> words = absl::StrSplit(parts.first, ',');
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const absl::StatusOr<std::int64_t> size = Whole(fields[i], i < words.size() ? words[i] : absl::string_view());
    if (!size.ok()) return size.status();
    rule.sizes.push_back(*size);
  }
  for (std::size_t i = fields.size(); i < words.size(); ++i) {
    const std::pair<absl::string_view, absl::string_view> option = absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    if (words[i] == "bidirectional") {
      rule.bidirectional = true;
      continue;
    }
    if (option.first != "heads" && option.first != "seed") {
      return errors::InvalidField("option", "bidirectional, heads=N or seed=N", Quoted(words[i]));
    }
    const absl::StatusOr<std::int64_t> value = Whole(option.first, option.second);
    if (!value.ok()) return value.status();
    const bool is_seed = option.first == "seed";
    if (*value < (is_seed ? 0 : 1))
      return errors::InvalidField(option.first, is_seed ? "0 or more" : "at least 1", *value);
    (is_seed ? rule.seed : rule.heads) = *value;
  }
  if (!absl::StrContains(text, '@')) return rule;
  absl::StatusOr<std::vector<float>> values = Numbers(parts.second);
  if (!values.ok()) return values.status();
  rule.values = *std::move(values);
  return rule;
}

absl::Status Refuse(const RuleWords& rule, bool heads, bool seed, bool values) {
  if (!heads && rule.heads.has_value()) return errors::InvalidField("heads", "none here", *rule.heads);
  if (!seed && rule.seed.has_value()) {
    return errors::InvalidField("seed", values ? "none beside values" : "none here", *rule.seed);
  }
  if (!values && rule.values.has_value()) {
    return errors::InvalidField("values", "none here", absl::StrCat(rule.values->size(), " of them"));
  }
  return absl::OkStatus();
}

absl::StatusOr<WordTable> Finish(std::int64_t heads, Rule rule, std::string note) {
  absl::StatusOr<BiasTable> table = BiasTable::Create(heads, std::move(rule));
  if (!table.ok()) return table.status();
  return WordTable{*std::move(table), std::move(note)};
}

absl::StatusOr<WordTable> MakeAlibi(const std::string& text) {
  const absl::StatusOr<RuleWords> rule = ReadRule(text, {"heads"});
  if (!rule.ok()) return rule.status();
  if (absl::Status s = Refuse(*rule, false, false, false); !s.ok()) return s;
  const std::int64_t heads = rule->sizes[0];
  if (heads < 1 || heads > kMaxHeads) return errors::InvalidField("heads", absl::StrCat("1 to ", kMaxHeads), heads);
  return Finish(heads, AlibiRule{rule->bidirectional, PaperSlopes(heads)}, "");
}

absl::StatusOr<WordTable> MakeT5(const std::string& text) {
  absl::StatusOr<RuleWords> rule = ReadRule(text, {"num_buckets", "max_distance"});
  if (!rule.ok()) return rule.status();
  const bool random = !rule->values.has_value();
  if (absl::Status s = Refuse(*rule, true, random, true); !s.ok()) return s;
  const std::int64_t heads = rule->heads.value_or(1), seed = rule->seed.value_or(0);
  T5Rule t5{rule->sizes[0], rule->sizes[1], rule->bidirectional, {}};
  if (random) {
    const std::optional<std::int64_t> count = tensor::CheckedProduct({t5.num_buckets, heads});
    if (t5.num_buckets > 0 && (!count.has_value() || *count > BiasTable::kMaxValues)) {
      return errors::InvalidField("num_buckets x heads", absl::StrCat("at most ", BiasTable::kMaxValues),
                                  absl::StrCat(t5.num_buckets, " x ", heads));
    }
    t5.values =
        RandomValues(static_cast<std::size_t>(t5.num_buckets > 0 ? *count : 0), static_cast<std::uint64_t>(seed));
  } else {
    t5.values = *std::move(rule->values);
  }
  return Finish(heads, std::move(t5), random ? absl::StrCat("random values, seed ", seed) : "");
}

absl::StatusOr<WordTable> MakeOffsets(const std::string& text) {
  absl::StatusOr<RuleWords> rule = ReadRule(text, {"min_offset"});
  if (!rule.ok()) return rule.status();
  if (absl::Status s = Refuse(*rule, true, false, true); !s.ok()) return s;
  if (rule->bidirectional) {
    return errors::InvalidField("option", "heads=N (a min_offset below 0 makes it bidirectional)", "\"bidirectional\"");
  }
  if (!rule->values.has_value()) return errors::InvalidField("values", "a list after @", "none");
  return Finish(rule->heads.value_or(1), PerOffsetRule{rule->sizes[0], *std::move(rule->values)}, "");
}

bool IsTableName(absl::string_view name) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(name, absl::MaxSplits('.', 1));
  if (parts.first != "decoder" && parts.first != "encoder") return false;
  return name.size() == parts.first.size() || AllDigits(parts.second);
}

// Splits "name:decoder". If the text after the last colon is not a table's name, the whole text is the name.
std::pair<std::string, std::string> NameAndTable(absl::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || !IsTableName(text.substr(colon + 1))) return {std::string(text), ""};
  return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

}  // namespace

absl::StatusOr<SourceWords> ReadSource(absl::string_view text) {
  SourceWords words{errors::Shown(text, kMaxLabel), SourceKind::kModel, "", "", std::nullopt};
  const std::size_t hash = text.rfind('#');
  if (hash != absl::string_view::npos && (AllDigits(text.substr(hash + 1)) || !absl::StartsWith(text, "file:"))) {
    const absl::StatusOr<std::int64_t> head = Whole("head", text.substr(hash + 1));
    if (!head.ok()) return errors::Under(words.Prefix(), head.status());
    words.head = *head;
    text = text.substr(0, hash);
  }
  static constexpr std::pair<absl::string_view, SourceKind> kKinds[] = {{"model", SourceKind::kModel},
                                                                        {"file", SourceKind::kFile},
                                                                        {"alibi", SourceKind::kAlibi},
                                                                        {"t5", SourceKind::kT5},
                                                                        {"offsets", SourceKind::kOffsets}};
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  bool known = false;
  for (const auto& [name, kind] : kKinds) {
    if (!absl::StrContains(text, ':') || name != parts.first) continue;
    known = true;
    words.kind = kind;
  }
  const bool has_table = words.kind == SourceKind::kModel || words.kind == SourceKind::kFile;
  words.name = std::string(known ? parts.second : text);
  if (has_table) std::tie(words.name, words.table) = NameAndTable(known ? parts.second : text);
  if (words.name.empty()) {
    return errors::InvalidField(words.Prefix() + "source", "a name behind the colon, or a model's", "nothing");
  }
  if (words.kind == SourceKind::kModel && absl::StrContains(words.name, ':')) {
    return errors::InvalidField(words.Prefix() + "source",
                                "alibi:HEADS, t5:BUCKETS,MAX, offsets:MIN@VALUES, file:PATH, MODEL or MODEL:TABLE",
                                Quoted(text));
  }
  if (words.kind == SourceKind::kT5 && IsTableName(words.name)) {
    return errors::InvalidField(words.Prefix() + "source", "t5:BUCKETS,MAX, or model:t5:TABLE for a model named t5",
                                Quoted(text));
  }
  return words;
}

absl::StatusOr<WordTable> MakeTable(const SourceWords& words) {
  absl::StatusOr<WordTable> made = words.kind == SourceKind::kAlibi ? MakeAlibi(words.name)
                                   : words.kind == SourceKind::kT5  ? MakeT5(words.name)
                                                                    : MakeOffsets(words.name);
  if (!made.ok()) return errors::Under(words.Prefix(), made.status());
  return made;
}

}  // namespace attnd::bias
