// The codec against protobuf's parser. The input's first byte is how many bytes of slice sizes follow it; the message
// is the rest.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "wire/codec_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const attnd::server::SilentProtobuf silent;
  if (size == 0) return 0;
  absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const absl::string_view cuts = rest.substr(0, data[0]);
  rest.remove_prefix(cuts.size());
  const std::string bytes(rest);
  const std::string difference = attnd::server::DifferenceFromProtobuf(attnd::server::InSlices(bytes, cuts), bytes);
  if (!difference.empty()) {
    std::fprintf(stderr, "%s\n", difference.c_str());
    std::abort();
  }
  return 0;
}
