// Settings of gRPC channels, as given in the benchmarks' flags.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attnd::bench {

using ChannelSettings = std::vector<std::pair<std::string, int>>;

// Parses "name=number" settings. Errors: INVALID_ARGUMENT.
inline absl::StatusOr<ChannelSettings> ParseChannelSettings(const std::vector<std::string>& words) {
  ChannelSettings settings;
  for (const std::string& word : words) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(word, absl::MaxSplits('=', 1));
    int value = 0;
    if (!absl::SimpleAtoi(parts.second, &value)) {
      return absl::InvalidArgumentError(absl::StrCat("--channel_settings: expected name=number, got ", word));
    }
    settings.emplace_back(parts.first, value);
  }
  return settings;
}

}  // namespace attnd::bench
