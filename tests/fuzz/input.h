// Takes a fuzz target's input apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace attnd::fuzz {

// Numbers and text from the front of the input; zeros and empty text behind its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }

  // Little-endian.
  template <typename Number>
  Number Take() {
    const absl::string_view taken = Bytes(sizeof(Number));
    Number number{};
    std::memcpy(&number, taken.data(), std::min(taken.size(), sizeof(number)));
    return number;
  }

  // Up to `size` bytes.
  absl::string_view Bytes(std::size_t size) {
    const absl::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  // Bytes after two bytes that say how many they are.
  absl::string_view Block() { return Bytes(Take<std::uint16_t>()); }

  absl::string_view Rest() { return Bytes(rest_.size()); }

 private:
  absl::string_view rest_;
};

}  // namespace attnd::fuzz
