#include "model/said.h"

#include <cmath>
#include <cstddef>

#include "errors/shown.h"
#include "model/names.h"

namespace attnd::model {
namespace {

constexpr std::size_t kMaxBytes = 200;

}  // namespace

std::string Said(const nlohmann::json& value) {
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const auto number = value.get<double>();
    return std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
  }
  return errors::Shown(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), kMaxBytes);
}

std::string SaidOf(const nlohmann::json& object, const char* field) {
  const auto found = object.find(field);
  return found == object.end() ? "none" : Said(*found);
}

}  // namespace attnd::model
