// A JSON value for a message.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace attnd::model {

// A string quoted once; anything else as JSON writes it, with Python's words for numbers that JSON has not. Printable
// and not too long.
std::string Said(const nlohmann::json& value);

// The same of a field of `object`; "none" if it is missing.
std::string SaidOf(const nlohmann::json& object, const char* field);

}  // namespace attnd::model
