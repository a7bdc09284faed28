#include "files/json_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attnd::files {

using Json = nlohmann::json;

absl::StatusOr<JsonDocument> JsonBuilder::Parse(std::string_view text) {
  // The parser would take a NUL for the end of its input and ignore what follows.
  if (text.find('\0') != std::string_view::npos) return absl::InvalidArgumentError("holds a NUL byte");
  if (!Json::sax_parse(text, static_cast<nlohmann::json_sax<Json>*>(this))) {
    return absl::InvalidArgumentError(error_);
  }
  return std::move(result_);
}

bool JsonBuilder::key(std::string& name) {
  if (duplicate_keys_ == DuplicateKeys::kRefused && open_.back()->contains(name)) {
    return Fail(absl::StrCat("key \"", name, "\" is given twice"));
  }
  key_ = std::move(name);
  return true;
}

bool JsonBuilder::parse_error(std::size_t /*position*/, const std::string& /*last_token*/,
                              const nlohmann::detail::exception& error) {
  return Fail(error.what());
}

Json* JsonBuilder::Add(Json value) {
  if (open_.empty()) {
    result_ = JsonDocument(std::move(value));
    return &result_;
  }
  Json& parent = *open_.back();
  if (parent.is_object()) return &(parent[key_] = std::move(value));
  parent.push_back(std::move(value));
  return &parent.back();
}

bool JsonBuilder::Open(Json empty) {
  if (open_.size() >= max_depth_) return Fail(absl::StrCat("nested deeper than ", max_depth_));
  // The pointer stays valid: the parent gets no other child while this one is open.
  open_.push_back(Add(std::move(empty)));
  return true;
}

bool JsonBuilder::Close() {
  open_.pop_back();
  return true;
}

bool JsonBuilder::Fail(std::string message) {
  error_ = std::move(message);
  return false;
}

}  // namespace attnd::files
