#include "client/attnctl/parse.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/attnctl/command.h"

namespace attnd::ctl {

absl::StatusOr<Mask> ParseMask(const std::string& word) {
  if (word.empty()) return Mask::kOfTable;
  if (word == "causal") return Mask::kCausal;
  if (word == "none") return Mask::kNone;
  return UsageError(absl::StrCat("--mask: expected causal or none, got ", word));
}

absl::StatusOr<Layout> ParseLayout(const std::string& word) {
  if (word == "bhsd") return Layout::kBatchHeadSequenceDim;
  if (word == "bshd") return Layout::kBatchSequenceHeadDim;
  return UsageError(absl::StrCat("--layout: expected bhsd or bshd, got ", word));
}

absl::StatusOr<DType> ParseDType(const std::string& word) {
  if (word == "f32") return DType::kFp32;
  if (word == "f16") return DType::kFp16;
  if (word == "bf16") return DType::kBf16;
  return UsageError(absl::StrCat("--output_dtype: expected f32, f16 or bf16, got ", word));
}

absl::StatusOr<std::vector<std::int64_t>> ParseNumbers(const std::string& flag, const std::vector<std::string>& words) {
  std::vector<std::int64_t> numbers(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!absl::SimpleAtoi(words[i], &numbers[i])) {
      return UsageError(
          absl::StrCat("--", flag, ": expected whole numbers separated by commas, got \"", words[i], "\""));
    }
  }
  return numbers;
}

const char* NameOf(Mask mask) { return mask == Mask::kCausal ? "causal" : "none"; }

}  // namespace attnd::ctl
