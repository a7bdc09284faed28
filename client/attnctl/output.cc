#include "client/attnctl/output.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "files/output_file.h"

namespace attnd::ctl {
namespace {

// Payload URL that marks a status as an error of writing.
constexpr char kOutputUrl[] = "attnctl/output";

}  // namespace

absl::Status WriteOutput(const std::string& path, const std::string& contents) {
  const files::Bytes bytes(reinterpret_cast<const std::byte*>(contents.data()), contents.size());
  return OutputError(files::WriteFile(path.empty() ? "-" : path, {bytes}));
}

bool IsStandardOutput(const std::string& path) { return files::IsStandardOutput(path); }

bool IsSameFile(const std::string& a, const std::string& b) {
  struct stat its, others;
  return stat(a.c_str(), &its) == 0 && stat(b.c_str(), &others) == 0 && S_ISREG(its.st_mode) &&
         its.st_dev == others.st_dev && its.st_ino == others.st_ino;
}

absl::Status CheckOutput(const std::string& path) {
  struct stat there;
  if (path == "-" || lstat(path.c_str(), &there) == 0) {
    if (path == "-" || stat(path.c_str(), &there) != 0 || !S_ISDIR(there.st_mode)) return absl::OkStatus();
    return OutputError(absl::InvalidArgumentError(absl::StrCat("cannot write ", path, ": it is a folder")));
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (errno == ENOENT && stat(folder.c_str(), &there) == 0) return absl::OkStatus();
  return OutputError(files::WriteError(errno, path));
}

absl::Status OutputError(absl::Status status) {
  if (!status.ok()) status.SetPayload(kOutputUrl, absl::Cord());
  return status;
}

bool IsOutputError(const absl::Status& status) { return status.GetPayload(kOutputUrl).has_value(); }

}  // namespace attnd::ctl
