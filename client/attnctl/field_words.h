// Translates fields of attnd.v1 requests to the words of the command line. A server names fields in its errors
// (ErrorDetail), but fields are not flags, and the user needs to know the flag.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "attnd/error_detail.h"

namespace attnd::ctl {

struct FieldWords {
  const char* message;  // of attnd.v1
  const char* field;    // its path: "table.t5.values"
  // A flag ("--table"), a command's argument ("MODEL"), or a part of a file ("the heads of q"). Null if attnctl never
  // sets the field; then error messages omit what they say about it.
  const char* words;
  bool list = true;  // the field has several elements, but the flag gives one
};

// All fields of the requests that attnctl's commands send, in the order of the .proto files. Thread-safe.
const std::vector<FieldWords>& AllFieldWords();

struct EnumWords {
  const char* name;   // "MASK_CAUSAL"
  const char* words;  // "causal"
};

// All enum values of those fields, except the unspecified ones.
const std::vector<EnumWords>& AllEnumWords();

// `detail`, which is about a `message`, as text: "--query_offsets: expected none beside --query_offset, got 1 values".
std::string InWords(absl::string_view message, const ErrorDetail& detail);

// Whether `detail` is about the size of an axis of q, k and v.
bool IsAboutAxes(absl::string_view message, const ErrorDetail& detail);

}  // namespace attnd::ctl
