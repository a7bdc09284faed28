// Kinds of flags, by type of value. Each Set() returns the errors of WrongValue or NotAChoice, also for an empty text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "client/attnctl/flag.h"
#include "client/attnctl/flag_values.h"

namespace attnd::ctl {

// A flag with a value of one of the types that flag_values.h parses.
template <typename T>
class ValueFlag : public Flag {
 public:
  // `initial` need not be in the range.
  ValueFlag(FlagList& list, std::string name, std::string placeholder, T initial, std::string help,
            std::string default_words = "", Range<T> range = Range<T>())
      : Flag(list, std::move(name), std::move(placeholder), std::move(help), std::move(default_words)),
        range_(std::move(range)),
        value_(std::move(initial)) {}

  const T& value() const { return value_; }

  absl::Status Set(const std::string& text) override {
    std::optional<T> parsed = Parsed(text, range_);
    if (!parsed.has_value()) return WrongValue(*this, Expected(range_), text, Meant(text, range_));
    value_ = *std::move(parsed);
    return absl::OkStatus();
  }

 private:
  const Range<T> range_;
  T value_;
};

// As ValueFlag, but initially without a value.
template <typename T>
class OptionalFlag : public Flag {
 public:
  OptionalFlag(FlagList& list, std::string name, std::string placeholder, std::string help,
               std::string default_words = "", Range<T> range = Range<T>())
      : Flag(list, std::move(name), std::move(placeholder), std::move(help), std::move(default_words)),
        range_(std::move(range)) {}

  const std::optional<T>& value() const { return value_; }

  absl::Status Set(const std::string& text) override {
    std::optional<T> parsed = Parsed(text, range_);
    if (!parsed.has_value()) return WrongValue(*this, Expected(range_), text, Meant(text, range_));
    value_ = std::move(parsed);
    return absl::OkStatus();
  }

 private:
  const Range<T> range_;
  std::optional<T> value_;
};

// Any text; initially empty.
class TextFlag : public ValueFlag<std::string> {
 public:
  TextFlag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words = "")
      : ValueFlag(list, std::move(name), std::move(placeholder), "", std::move(help), std::move(default_words)) {}
};

// On or off; initially off.
class Switch : public ValueFlag<bool> {
 public:
  Switch(FlagList& list, std::string name, std::string help)
      : ValueFlag(list, std::move(name), "", false, std::move(help)) {}
};

// Whole numbers separated by commas; initially none.
class NumbersFlag : public Flag {
 public:
  NumbersFlag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words,
              Range<std::int64_t> range = Range<std::int64_t>())
      : Flag(list, std::move(name), std::move(placeholder), std::move(help), std::move(default_words)), range_(range) {}

  const std::vector<std::int64_t>& value() const { return value_; }
  absl::Status Set(const std::string& text) override;

 private:
  const Range<std::int64_t> range_;
  std::vector<std::int64_t> value_;
};

// Numbers of heads, separated by commas, or `all`.
class HeadsFlag : public Flag {
 public:
  using Flag::Flag;

  bool given() const { return given_; }
  const std::vector<std::int64_t>& value() const { return value_; }  // empty: all
  absl::Status Set(const std::string& text) override;

 private:
  bool given_ = false;
  std::vector<std::int64_t> value_;
};

// One of a fixed set of words, each of which represents a value.
template <typename T>
class ChoiceFlag : public Flag {
 public:
  using Choices = std::vector<std::pair<std::string, T>>;

  // `initial` need not be among the choices.
  ChoiceFlag(FlagList& list, std::string name, const Choices& choices, T initial, std::string help,
             std::string default_words)
      : Flag(list, std::move(name), absl::StrJoin(Words(choices), "|"), std::move(help), std::move(default_words)),
        choices_(choices),
        value_(initial) {}

  const T& value() const { return value_; }
  // The word of the value; empty if the value is not among the choices.
  std::string word() const { return WordOf(value_); }
  std::vector<std::string> choices() const override { return Words(choices_); }

  absl::Status Set(const std::string& text) override {
    for (const auto& [word, value] : choices_) {
      if (text != word) continue;
      value_ = value;
      return absl::OkStatus();
    }
    return NotAChoice(*this, choices(), text);
  }

 private:
  static std::vector<std::string> Words(const Choices& choices) {
    std::vector<std::string> words;
    for (const auto& [word, value] : choices) words.push_back(word);
    return words;
  }

  std::string WordOf(const T& value) const {
    for (const auto& [word, its_value] : choices_) {
      if (its_value == value) return word;
    }
    return "";
  }

  const Choices choices_;
  T value_;
};

}  // namespace attnd::ctl
