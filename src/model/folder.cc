#include "model/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "files/access.h"
#include "files/descriptor.h"

namespace attnd::model {
namespace {

using files::Descriptor;

std::string ProcPath(int descriptor) { return absl::StrCat("/proc/self/fd/", descriptor); }

// The path of the object behind a descriptor, links resolved; empty if it cannot be determined.
std::string PathOf(int descriptor) {
  std::string path(PATH_MAX, '\0');
  const ssize_t size = readlink(ProcPath(descriptor).c_str(), path.data(), path.size());
  path.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return path;
}

absl::Status OpenError(int folder, const std::string& path) {
  return files::ExplainedOpenError(errno, folder, path, path);
}

// Advice for a link of the Hub's cache that leads nowhere or out of the root; empty for any other link.
std::string HintOnLinks(int folder, const std::string& path) {
  std::string target(PATH_MAX, '\0');
  const ssize_t size = readlinkat(folder, path.c_str(), target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  if (!absl::StrContains(target, "/blobs/")) return "";
  return " (files of a snapshot in the Hub's cache are links into blobs/: let the model root be the cache, or its "
         "folder "
         "models--*)";
}

}  // namespace

absl::StatusOr<Folder> Folder::OpenRoot(const std::string& path) {
  Descriptor descriptor(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0) return OpenError(AT_FDCWD, path);
  // Listing a folder's names and opening what they name are separate permissions.
  if (Descriptor(openat(descriptor.get(), ".", O_PATH | O_CLOEXEC)).get() < 0) return OpenError(AT_FDCWD, path);
  std::string root = PathOf(descriptor.get());
  if (root.empty()) return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be resolved; is /proc mounted?"));
  if (root.back() != '/') root.push_back('/');
  return Folder(descriptor.Release(), std::move(root));
}

Folder::~Folder() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<Folder::Entry> Folder::Open(const std::string& path) const {
  // O_PATH finds the object without opening it, so devices and FIFOs are not affected.
  const Descriptor found(openat(descriptor_, path.c_str(), O_PATH | O_CLOEXEC));
  if (found.get() < 0) {
    const absl::Status status = OpenError(descriptor_, path);
    return absl::Status(status.code(), absl::StrCat(status.message(), HintOnLinks(descriptor_, path)));
  }
  if (!absl::StartsWith(absl::StrCat(PathOf(found.get()), "/"), root_)) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": leads out of the model root", HintOnLinks(descriptor_, path)));
  }
  struct stat info;
  if (fstat(found.get(), &info) != 0) return OpenError(descriptor_, path);
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected a regular file or a folder"));
  }
  const int flags = O_RDONLY | O_CLOEXEC | (S_ISDIR(info.st_mode) ? O_DIRECTORY : 0);
  Descriptor opened(open(ProcPath(found.get()).c_str(), flags));
  if (opened.get() < 0) return OpenError(descriptor_, path);
  if (S_ISDIR(info.st_mode)) return Entry(Folder(opened.Release(), root_));
  auto source = files::OpenDescriptor(opened.Release(), path);
  if (!source.ok()) return source.status();
  return Entry(*std::move(source));
}

absl::StatusOr<std::unique_ptr<files::ByteSource>> Folder::OpenFile(const std::string& path) const {
  absl::StatusOr<Entry> entry = Open(path);
  if (!entry.ok()) return entry.status();
  if (auto* file = std::get_if<std::unique_ptr<files::ByteSource>>(&*entry)) return std::move(*file);
  return absl::InvalidArgumentError(absl::StrCat(path, ": expected a file, got a folder"));
}

Folder::Kind Folder::KindOf(const std::string& path) const {
  struct stat info;
  if (fstatat(descriptor_, path.c_str(), &info, 0) != 0) return Kind::kNothing;
  if (S_ISDIR(info.st_mode)) return Kind::kFolder;
  return S_ISREG(info.st_mode) ? Kind::kFile : Kind::kOther;
}

absl::StatusOr<std::vector<std::string>> Folder::List() const {
  // A descriptor of its own, because reading the folder moves the descriptor's position.
  Descriptor copy(openat(descriptor_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (copy.get() < 0) return OpenError(AT_FDCWD, root_);
  DIR* const stream = fdopendir(copy.get());
  if (stream == nullptr) return OpenError(AT_FDCWD, root_);
  copy.Release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    errno = 0;
  }
  const int error = errno;
  closedir(stream);
  if (error != 0) return absl::DataLossError(absl::StrCat(root_, ": ", std::strerror(error)));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace attnd::model
