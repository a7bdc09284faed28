#include "files/system_error.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace attnd::files {

absl::Status SystemError(int error, const std::string& what, absl::StatusCode otherwise) {
  const auto code = [error, otherwise] {
    switch (error) {
      case ENOENT:
      case ENOTDIR:
        return absl::StatusCode::kNotFound;
      case EACCES:
      case EPERM:
      case EROFS:
        return absl::StatusCode::kPermissionDenied;
      case ENOSPC:
      case EDQUOT:
      case EFBIG:
      case EMFILE:
      case ENFILE:
      case ENOMEM:
        return absl::StatusCode::kResourceExhausted;
      default:
        return otherwise;
    }
  };
  return absl::Status(code(), absl::StrCat(what, ": ", std::strerror(error)));
}

}  // namespace attnd::files
