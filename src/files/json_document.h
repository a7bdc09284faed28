// A JSON value that goes without asking for memory.
#pragma once

#include <utility>

#include "nlohmann/json.hpp"

namespace attnd::files {

// Empties `value`, from the innermost values outward. Recurses as deep as it is nested.
inline void Dismantle(nlohmann::json& value) {
  if (!value.is_structured()) return;
  for (nlohmann::json& child : value) Dismantle(child);
  value.clear();
}

// What the parsers return. nlohmann's destructor allocates, to be iterative, a list of what a value holds; where there
// is no memory for that it ends the process. This one leaves it nothing to list. Nested as deep as the parser lets it.
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
