// A command-line flag, which describes itself (for help, completion and a manual) and parses its own value.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace attnd::ctl {

class Flag;
// In the order of definition. Does not own them.
using FlagList = std::vector<Flag*>;

// What all kinds have in common. Not thread-safe.
class Flag {
 public:
  // Adds itself to `list`. The placeholder says what a value is: FILE is completed as the name of a file, MODEL as
  // that of a loaded model, and ID as the number of an open session.
  Flag(FlagList& list, std::string name, std::string placeholder, std::string help, std::string default_words);
  virtual ~Flag() = default;
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;

  const std::string& name() const { return name_; }                    // "query_offset"
  const std::string& placeholder() const { return placeholder_; }      // of the value: "ADDRESS", "causal|none"
  const std::string& help() const { return help_; }                    // what it does
  const std::string& default_words() const { return default_words_; }  // what holds without it; may be empty
  bool is_switch() const { return placeholder_.empty(); }              // `--json` alone sets it
  // All values that it takes; empty if there is no such list.
  virtual std::vector<std::string> choices() const { return {}; }

  // Takes the value that `text` says. Errors: see UsageError (usage.h); the value is then as it was.
  virtual absl::Status Set(const std::string& text) = 0;

 private:
  const std::string name_, placeholder_, help_, default_words_;
};

// "--queries: expected a whole number of at least 1, got "many"". `advice` as in UsageError; without it, and for an
// empty text, it says what holds without the flag, or what the flag does.
absl::Status WrongValue(const Flag& flag, const std::string& expected, const std::string& text,
                        const std::string& advice = "");

// "--mask: expected causal or none, got "all"", and which of them was perhaps meant. `choices` is not empty.
absl::Status NotAChoice(const Flag& flag, const std::vector<std::string>& choices, const std::string& text);

// "a, b or c".
std::string Or(const std::vector<std::string>& words);

}  // namespace attnd::ctl
