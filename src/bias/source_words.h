// The notation that names a bias table: "t5-tiny:encoder", "alibi:8", "t5:32,128,heads=8", "offsets:0@1,0.5",
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
  std::string label;                 // the whole text, printable and cut if it is long
  SourceKind kind;                   // kModel also if the text does not begin with a known kind and a colon
  std::string name;                  // a model's name, a file's path, or the text of the rule
  std::string table;                 // of a model or file; empty: the default table
  std::optional<std::int64_t> head;  // if set, only this head

  // "label: ", to prepend to the field of an error.
  std::string Prefix() const { return label + ": "; }
};

// Parses the notation. Errors: INVALID_ARGUMENT with a field that begins with the label.
absl::StatusOr<SourceWords> ReadSource(absl::string_view text);

// A table that is fully defined by its notation.
struct WordTable {
  BiasTable table;
  std::string note;  // where its values come from, if that is not obvious
};

// The table for kAlibi, kT5 and kOffsets. Errors: those of ReadSource and of BiasTable::Create.
absl::StatusOr<WordTable> MakeTable(const SourceWords& words);

}  // namespace attnd::bias
