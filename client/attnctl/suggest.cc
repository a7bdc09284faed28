#include "client/attnctl/suggest.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

namespace attnd::ctl {
namespace {

std::string Plain(absl::string_view word) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(std::string(word)), {{"-", "_"}});
}

// The number of letters that may differ in a word of this size.
std::size_t Tolerated(std::size_t size) { return size <= 4 ? 1 : size <= 8 ? 2 : 3; }

}  // namespace

std::size_t Distance(absl::string_view a, absl::string_view b) {
  // rows[i][j]: distance between the first i letters of a and the first j of b.
  std::vector<std::vector<std::size_t>> rows(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        rows[i][j] = i + j;
        continue;
      }
      const std::size_t replaced = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      rows[i][j] = std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
  }
  return rows[a.size()][b.size()];
}

std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates) {
  constexpr std::size_t kLongest = 64;  // longer words are not mistyped names
  const std::string plain = Plain(word);
  if (plain.empty() || plain.size() > kLongest) return "";
  std::string nearest, begun;
  std::size_t least = Tolerated(plain.size()) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = Distance(plain, Plain(candidate));
    // For a short word, some letters must remain.
    if (distance < least && distance < std::max<std::size_t>(candidate.size(), 2) - 1) {
      least = distance;
      nearest = candidate;
    }
    if (begun.empty() && plain.size() >= 2 && absl::StartsWith(Plain(candidate), plain)) begun = candidate;
  }
  return nearest.empty() ? begun : nearest;
}

}  // namespace attnd::ctl
