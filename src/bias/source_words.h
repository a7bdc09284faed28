// The words that name a bias table: "t5-tiny:encoder", "alibi:8", "t5:32,128,heads=8", "offsets:0@1,0.5",
// "file:a.json". docs/comparing-biases.md has the grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bias/bias_table.h"

namespace attnd::bias {

enum class SourceKind { kModel, kFile, kAlibi, kT5, kOffsets };

struct SourceWords {
  std::string label;                 // the words themselves, printable and not too long
  SourceKind kind;                   // kModel also for words without a known kind before a colon
  std::string name;                  // a model's name, a file's path, or the rule's words
  std::string table;                 // of a model or file; empty: its usual one
  std::optional<std::int64_t> head;  // the only head that is meant

  // "the words: ", to stand before the fields of an error.
  std::string Prefix() const { return label + ": "; }
};

// Takes a source's words apart. Errors: INVALID_ARGUMENT with a field that begins with the words.
absl::StatusOr<SourceWords> ReadSource(absl::string_view text);

// A table that words alone define.
struct WordTable {
  BiasTable table;
  std::string note;  // where its values come from, if that is not plain
};

// The table of kAlibi, kT5 and kOffsets. Errors: as ReadSource; those of BiasTable::Create.
absl::StatusOr<WordTable> MakeTable(const SourceWords& words);

}  // namespace attnd::bias
