#include "files/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "files/access.h"

namespace attnd::files {
namespace {

absl::Status CheckRange(std::int64_t offset, std::size_t count, std::int64_t size) {
  if (offset >= 0 && offset <= size && count <= static_cast<std::size_t>(size - offset)) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("bytes ", offset, " to ", offset, " + ", count, " of ", size));
}

class FileSource final : public ByteSource {
 public:
  FileSource(int descriptor, std::int64_t size, std::string path)
      : descriptor_(descriptor), size_(size), path_(std::move(path)) {}
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  ~FileSource() override { close(descriptor_); }

  std::int64_t size() const override { return size_; }

  absl::Status ReadAt(std::int64_t offset, absl::Span<std::byte> out) const override {
    if (absl::Status range = CheckRange(offset, out.size(), size_); !range.ok()) return range;
    while (!out.empty()) {
      const ssize_t count = pread(descriptor_, out.data(), out.size(), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return absl::DataLossError(absl::StrCat(path_, ": ", std::strerror(errno)));
      if (count == 0) return absl::DataLossError(absl::StrCat(path_, ": the file has shrunk while it was read"));
      offset += count;
      out.remove_prefix(static_cast<std::size_t>(count));
    }
    return absl::OkStatus();
  }

 private:
  const int descriptor_;
  const std::int64_t size_;
  const std::string path_;
};

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(bytes_.size()); }

  absl::Status ReadAt(std::int64_t offset, absl::Span<std::byte> out) const override {
    if (absl::Status range = CheckRange(offset, out.size(), size()); !range.ok()) return range;
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  const absl::Span<const std::byte> bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenDescriptor(int descriptor, const std::string& path) {
  struct stat info;
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(descriptor);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  return std::make_unique<FileSource>(descriptor, info.st_size, path);
}

absl::StatusOr<std::unique_ptr<ByteSource>> OpenFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return ExplainedOpenError(errno, AT_FDCWD, path, path);
  return OpenDescriptor(descriptor, path);
}

std::unique_ptr<ByteSource> OpenMemory(absl::Span<const std::byte> bytes) {
  return std::make_unique<MemorySource>(bytes);
}

}  // namespace attnd::files
