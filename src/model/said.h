// The text of a JSON value in a message.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace attnd::model {

// Strings are quoted; anything else is written as JSON, with Python's words for numbers that JSON lacks. Printable, and
// cut if it is long.
std::string Said(const nlohmann::json& value);

// The same for a field of `object`; "none" if it is missing.
std::string SaidOf(const nlohmann::json& object, const char* field);

}  // namespace attnd::model
