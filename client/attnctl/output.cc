#include "client/attnctl/output.h"

#include <cerrno>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"

namespace attnd::ctl {

absl::Status WriteOutput(const std::string& path, const std::string& contents) {
  const bool to_stdout = path.empty() || path == "-";
  std::ofstream file;
  if (!to_stdout) file.open(path, std::ios::binary | std::ios::trunc);
  std::ostream& out = to_stdout ? std::cout : file;
  out << contents << std::flush;
  if (out.good()) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", to_stdout ? "standard output" : path));
}

}  // namespace attnd::ctl
