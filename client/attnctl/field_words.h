// The fields of attnd.v1's requests in the words of the command line. A server refuses a request by the names of its
// fields (ErrorDetail), which are no flags; whoever types a command wants to be told of the flag.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "attnd/error_detail.h"

namespace attnd::ctl {

struct FieldWords {
  const char* message;  // of attnd.v1
  const char* field;    // its path: "table.t5.values"
  // A flag ("--table"), a command's argument ("MODEL"), or what of a file is meant ("the heads of q"). Null if attnctl
  // never sets it: what an error says of it is left out.
  const char* words;
  bool list = true;  // false: the field has several elements, and the flag names one
};

// All fields of the requests that attnctl's commands send, in the order of the .proto files. Thread-safe.
const std::vector<FieldWords>& AllFieldWords();

struct EnumWords {
  const char* name;   // "MASK_CAUSAL"
  const char* words;  // "causal"
};

// All values of the enums of those fields, but for the unspecified ones.
const std::vector<EnumWords>& AllEnumWords();

// "--query_offsets: expected none beside --query_offset, got 1 values": `detail`, which is about a `message`.
std::string InWords(absl::string_view message, const ErrorDetail& detail);

// Whether it is about the size of an axis of q, k and v.
bool IsAboutAxes(absl::string_view message, const ErrorDetail& detail);

}  // namespace attnd::ctl
