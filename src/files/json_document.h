// A JSON value whose destructor allocates no memory.
#pragma once

#include <utility>

#include "nlohmann/json.hpp"

namespace attnd::files {

// Empties `value`, innermost values first. The recursion is as deep as the nesting.
inline void Dismantle(nlohmann::json& value) {
  if (!value.is_structured()) return;
  for (nlohmann::json& child : value) Dismantle(child);
  value.clear();
}

// What the parsers return. To be iterative, nlohmann's destructor allocates a list of the value's children, and ends
// the process if that allocation fails. This class leaves it an empty value. Its recursion is bounded by the parsers'
// limit on nesting.
class JsonDocument : public nlohmann::json {
 public:
  JsonDocument() = default;
  explicit JsonDocument(nlohmann::json&& value) noexcept : nlohmann::json(std::move(value)) {}
  JsonDocument(JsonDocument&& other) noexcept : nlohmann::json(static_cast<nlohmann::json&&>(other)) {}
  JsonDocument& operator=(JsonDocument&& other) noexcept {
    swap(other);
    return *this;
  }
  ~JsonDocument() { Dismantle(*this); }
};

}  // namespace attnd::files
