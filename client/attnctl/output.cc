#include "client/attnctl/output.h"

#include <utility>

#include "absl/strings/cord.h"
#include "files/output_file.h"

namespace attnd::ctl {
namespace {

// Marks a status as an error of writing.
constexpr char kOutputUrl[] = "attnctl/output";

}  // namespace

absl::Status WriteOutput(const std::string& path, const std::string& contents) {
  const files::Bytes bytes(reinterpret_cast<const std::byte*>(contents.data()), contents.size());
  return OutputError(files::WriteFile(path.empty() ? "-" : path, {bytes}));
}

bool IsStandardOutput(const std::string& path) { return files::IsStandardOutput(path); }

absl::Status OutputError(absl::Status status) {
  if (!status.ok()) status.SetPayload(kOutputUrl, absl::Cord());
  return status;
}

bool IsOutputError(const absl::Status& status) { return status.GetPayload(kOutputUrl).has_value(); }

}  // namespace attnd::ctl
