// A command-line flag, which describes itself (for help, completion and a manual) and parses its own value.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace attnd::ctl {

class Flag;
// Flags in order of definition. Does not own them.
using FlagList = std::vector<Flag*>;

// The base class of all kinds of flags. Not thread-safe.
class Flag {
 public:
  // Adds itself to `list`. The placeholder names the kind of value: FILE is completed as a file name, MODEL as the name
  // of a loaded model, and ID as the number of an open session.
  Flag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words);
  virtual ~Flag() = default;
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;

  const std::string& name() const { return name_; }                    // "query_offset"
  const std::string& placeholder() const { return placeholder_; }      // of the value: "ADDRESS", "causal|none"
  const std::string& help() const { return help_; }                    // what it does
  const std::string& default_words() const { return default_words_; }  // describes the default; may be empty
  bool is_switch() const { return placeholder_.empty(); }              // set without a value, as `--json`
  // All values that it accepts; empty if it accepts others than a fixed list.
  virtual std::vector<std::string> choices() const { return {}; }

  // Sets the value from `text`. Errors: see UsageError (usage.h); the value is then unchanged.
  virtual absl::Status Set(const std::string& text) = 0;

 private:
  const std::string name_, placeholder_, help_, default_words_;
};

// "--queries: expected a whole number of at least 1, got "many"". `advice` is as in UsageError; if it is empty, the
// advice is the flag's default or, without one, what the flag does.
absl::Status WrongValue(const Flag& flag, const std::string& expected, const std::string& text,
                        const std::string& advice = "");

// "--mask: expected causal or none, got "all"", with the nearest choice as a suggestion. `choices` must not be empty.
absl::Status NotAChoice(const Flag& flag, const std::vector<std::string>& choices, const std::string& text);

// "a, b or c".
std::string Or(const std::vector<std::string>& words);

}  // namespace attnd::ctl
