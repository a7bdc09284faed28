// The int64 lists of a request.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "google/protobuf/repeated_field.h"

namespace attnd::server {

using Numbers = google::protobuf::RepeatedField<std::int64_t>;

inline absl::Span<const std::int64_t> SpanOf(const Numbers& numbers) {
  return {numbers.data(), static_cast<std::size_t>(numbers.size())};
}

}  // namespace attnd::server
