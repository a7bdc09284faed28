// Builds a JSON value from the events of nlohmann's parser. Shared by the two JSON dialects, strict and Python's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "files/json_document.h"
#include "nlohmann/json.hpp"

namespace attnd::files {

enum class DuplicateKeys { kRefused, kLastCounts };

// Parses one text. Iterative, so the depth of the text does not use up the stack.
class JsonBuilder : private nlohmann::json_sax<nlohmann::json> {
 public:
  JsonBuilder(int max_depth, DuplicateKeys duplicate_keys)
      : max_depth_(static_cast<std::size_t>(max_depth)), duplicate_keys_(duplicate_keys) {}

  // Parses one value with nothing after it. Errors: INVALID_ARGUMENT, with the position.
  absl::StatusOr<JsonDocument> Parse(std::string_view text);

 protected:
  // Hook: returns the value to store for a number with a fraction or exponent, written as `text`.
  virtual double Float(double value, const std::string& /*text*/) { return value; }

 private:
  using Json = nlohmann::json;

  // The parser's events. Each returns false to stop the parser.
  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(std::int64_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(std::uint64_t value) override { return Add(value) != nullptr; }
  bool number_float(double value, const std::string& text) override { return Add(Float(value, text)) != nullptr; }
  bool string(std::string& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t& /*value*/) override { return Fail("binary values are not JSON"); }
  bool start_object(std::size_t /*size*/) override { return Open(Json::object()); }
  bool start_array(std::size_t /*size*/) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(std::string& name) override;
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error) override;

  // Stores `value` at the parser's current place; returns a pointer to it.
  Json* Add(Json value);
  bool Open(Json empty);
  bool Close();
  bool Fail(std::string message);

  const std::size_t max_depth_;
  const DuplicateKeys duplicate_keys_;
  JsonDocument result_;
  std::vector<Json*> open_;
  std::string key_;
  std::string error_;
};

}  // namespace attnd::files
