#include "files/strict_json.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attnd::files {
namespace {

using Json = nlohmann::json;

// Builds the value from the parser's events. Every event returns false to stop the parser.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(int max_depth) : max_depth_(static_cast<std::size_t>(max_depth)) {}

  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(std::int64_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(std::uint64_t value) override { return Add(value) != nullptr; }
  bool number_float(double value, const std::string&) override { return Add(value) != nullptr; }
  bool string(std::string& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) override { return Fail("binary values are not JSON"); }
  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(std::string& name) override {
    if (open_.back()->contains(name)) return Fail(absl::StrCat("key \"", name, "\" is given twice"));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    return Fail(error.what());
  }

  Json TakeResult() { return std::move(result_); }
  const std::string& error() const { return error_; }

 private:
  // Puts a value where the parser stands; returns its place.
  Json* Add(Json value) {
    if (open_.empty()) return &(result_ = std::move(value));
    Json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool Open(Json empty) {
    if (open_.size() >= max_depth_) return Fail(absl::StrCat("nested deeper than ", max_depth_));
    // The place stays where it is: a parent gets no other child while this one is open.
    open_.push_back(Add(std::move(empty)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }

  const std::size_t max_depth_;
  Json result_;
  std::vector<Json*> open_;
  std::string key_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Json> ParseStrictJson(std::string_view text, int max_depth) {
  // The parser takes a NUL for the end of its input and ignores what follows.
  if (text.find('\0') != std::string_view::npos) return absl::InvalidArgumentError("not strict JSON: holds a NUL byte");
  Builder builder(max_depth);
  if (!Json::sax_parse(text, &builder)) {
    return absl::InvalidArgumentError(absl::StrCat("not strict JSON: ", builder.error()));
  }
  return builder.TakeResult();
}

}  // namespace attnd::files
