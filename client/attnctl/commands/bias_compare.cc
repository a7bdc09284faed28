#include "client/attnctl/commands/bias_compare.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "bias/comparison.h"
#include "client/attnctl/bias_source.h"
#include "client/attnctl/comparison_json.h"
#include "client/attnctl/output.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

bias::Axis AxisOf(AxisScale scale) {
  return scale == AxisScale::kLog      ? bias::Axis::kLog
         : scale == AxisScale::kLinear ? bias::Axis::kLinear
                                       : bias::Axis::kAuto;
}

bias::Negatives NegativesOf(Mask mask) {
  return mask == Mask::kCausal ? bias::Negatives::kNone
         : mask == Mask::kNone ? bias::Negatives::kAll
                               : bias::Negatives::kOfTables;
}

// Errors in the flags, with the flags' names on the command line.
absl::Status Judged(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kInvalidArgument) return status;
  const std::string message(status.message());
  for (const char* flag : {"heads: ", "max_offset: ", "trained_length: "}) {
    if (absl::StartsWith(message, flag)) return UsageError("--" + message);
  }
  return UsageError(message);
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  bias::ComparisonOptions options;
  options.max_offset = flags.max_offset.value();
  options.trained_length = flags.trained_length.value();
  options.axis = AxisOf(flags.axis.value());
  options.negatives = NegativesOf(flags.mask.value());
  options.heads = flags.heads.value();
  absl::StatusOr<std::vector<bias::ComparedSource>> sources = FindSources(arguments, flags);
  if (!sources.ok()) return sources.status();
  const absl::StatusOr<bias::Comparison> comparison = bias::Comparison::Create(*std::move(sources), options);
  if (!comparison.ok()) return Judged(comparison.status());
  const std::string shown = flags.format.value() == Format::kJson  ? ComparisonJson(*comparison)
                            : flags.format.value() == Format::kSvg ? bias::ComparisonSvg(*comparison)
                                                                   : bias::ComparisonText(*comparison);
  return WriteOutput(flags.out.value(), shown);
}

}  // namespace

Command BiasCompareCommand() {
  return {
      "bias compare",
      "SOURCE...",
      "compare biases, near and beyond the trained length",
      "Each SOURCE is a bias table:\n\n"
      "  MODEL, MODEL:TABLE       a loaded model (also model:MODEL, for one whose name is taken here)\n"
      "  alibi:HEADS              ALiBi with the paper's slopes\n"
      "  t5:BUCKETS,MAX           T5's buckets with random values, or with given ones: t5:4,5@0.1,0.2,0.3,0.4\n"
      "  offsets:MIN@V,V,...      a value for each offset from MIN on\n"
      "  file:PATH, file:PATH:TABLE   a checkpoint folder, GGUF or JSON file of this machine\n\n"
      "After alibi:HEADS and t5:BUCKETS,MAX may stand `,bidirectional`, after t5's also `,heads=N` and `,seed=N`.\n"
      "SOURCE#HEAD compares that head alone with all heads of the others. Without a loaded model among the sources\n"
      "no server is needed. A model named \"compare\" is drawn by `attnctl bias -- compare`.\n\n"
      "  attnctl bias compare t5-tiny alibi:8 --trained_length 512\n"
      "  attnctl bias compare alibi:8 t5:32,128,heads=8 --heads 0,7 --format svg --out compared.svg",
      {"heads", "max_offset", "trained_length", "axis", "mask", "format", "out"},
      Run};
}

}  // namespace attnd::ctl
