#include "files/access.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "files/descriptor.h"
#include "files/system_error.h"

namespace attnd::files {
namespace {

// "uid 0 (root)", or the number alone if it has no name, as in most containers.
std::string UserInWords(uid_t uid) {
  passwd entry = {};
  passwd* found = nullptr;
  std::array<char, 4096> names;
  const bool known = getpwuid_r(uid, &entry, names.data(), names.size(), &found) == 0 && found != nullptr;
  return known ? absl::StrCat("uid ", uid, " (", found->pw_name, ")") : absl::StrCat("uid ", uid);
}

bool InGroup(gid_t gid) {
  if (gid == getegid()) return true;
  const int count = getgroups(0, nullptr);
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(count, 0)));
  if (count <= 0 || getgroups(count, groups.data()) != count) return false;
  return std::find(groups.begin(), groups.end(), gid) != groups.end();
}

// The permission bits (of 7) that the mode grants this process: the owner's, the group's or the others'.
unsigned Granted(const struct stat& info) {
  if (info.st_uid == geteuid()) return (info.st_mode >> 6) & 7;
  if (InGroup(info.st_gid)) return (info.st_mode >> 3) & 7;
  return info.st_mode & 7;
}

// The object that denies access to `path`: `path` itself, or the last folder on the way to it that could be reached.
struct Denying {
  std::string path;  // empty: `folder` itself
  struct stat info;
};

std::optional<Denying> FindDenying(int folder, const std::string& path) {
  std::optional<Denying> last;
  struct stat info;
  for (std::size_t end = 0;;) {
    const std::string prefix = path.substr(0, end);
    if (prefix.empty()) {
      // In a folder that may not be searched, even "." cannot be opened.
      if ((folder == AT_FDCWD ? stat(".", &info) : fstat(folder, &info)) != 0) return last;
    } else {
      const Descriptor found(openat(folder, prefix.c_str(), O_PATH | O_CLOEXEC));
      if (found.get() < 0 || fstat(found.get(), &info) != 0) return last;
    }
    last = Denying{prefix, info};
    if (end == path.size()) return last;
    end = std::min(path.find('/', end + 1), path.size());
  }
}

// "belongs to uid 0 (root) with mode 0600, and this process runs as uid 65532: ...". `needed`: permission bits (of 7).
std::string InWords(const struct stat& info, unsigned needed) {
  std::string text =
      absl::StrFormat("belongs to %s with mode %04o, and this process runs as %s", UserInWords(info.st_uid),
                      static_cast<unsigned>(info.st_mode) & 07777U, UserInWords(geteuid()));
  if ((Granted(info) & needed) == needed) {
    return absl::StrCat(text, ", whom the mode lets in: look for an access control list, SELinux or AppArmor");
  }
  absl::StrAppend(&text, ": chmod a+", S_ISDIR(info.st_mode) ? "rx" : "r", " or chown it");
  // Nobody should run a server as root because of one file.
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    absl::StrAppend(&text, ", or run as its owner (docker run --user ", info.st_uid, ":", info.st_gid, ")");
  }
  return text;
}

// InWords for the object that denies access to `path`.
std::string Explanation(const Denying& denying, const std::string& path) {
  if (denying.path == path) return absl::StrCat("it ", InWords(denying.info, S_ISDIR(denying.info.st_mode) ? 5 : 4));
  constexpr unsigned kSearch = 1;
  if ((Granted(denying.info) & kSearch) != 0) return "a link leads through a folder that this process may not search";
  return absl::StrCat(denying.path.empty() ? "its folder" : denying.path, " ", InWords(denying.info, kSearch));
}

}  // namespace

absl::Status ExplainedOpenError(int error, int folder, const std::string& path, const std::string& shown) {
  absl::Status status = SystemError(error, shown, absl::StatusCode::kInvalidArgument);
  struct stat info;
  if (error == ENOENT && fstatat(folder, path.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(shown, ": a link to what is not there"));
  }
  if (error != EACCES && error != EPERM) return status;
  const std::optional<Denying> denying = FindDenying(folder, path);
  if (!denying.has_value()) return status;
  return absl::Status(status.code(), absl::StrCat(status.message(), ": ", Explanation(*denying, path)));
}

}  // namespace attnd::files
