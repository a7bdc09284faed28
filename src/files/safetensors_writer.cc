#include "files/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "files/byte_source.h"
#include "files/safetensors.h"
#include "nlohmann/json.hpp"
#include "tensor/checked_size.h"

namespace attnd::files {
namespace {

absl::Status CheckTensor(const TensorToWrite& tensor) {
  const auto invalid = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\": ", problem));
  };
  if (tensor.name.empty() || tensor.name == "__metadata__") return invalid("the name is empty or reserved");
  const std::optional<int> bits = SafetensorsBits(tensor.dtype);
  if (!bits) return invalid(absl::StrCat("dtype: \"", tensor.dtype, "\" is not one of the format"));
  const std::optional<std::int64_t> elements = tensor::CheckedProduct(tensor.shape);
  const std::optional<std::int64_t> all_bits = elements ? tensor::CheckedProduct({*elements, *bits}) : std::nullopt;
  if (!all_bits || *all_bits % 8 != 0) return invalid("shape: too large, negative, or no whole number of bytes");
  if (static_cast<std::uint64_t>(*all_bits / 8) != tensor.bytes.size()) {
    return invalid(absl::StrCat("bytes: expected ", *all_bits / 8, " for its shape, got ", tensor.bytes.size()));
  }
  return absl::OkStatus();
}

// A file under a name of its own beside its goal, removed unless it is moved there.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& goal) : goal_(goal) {
    std::random_device random;
    do {
      name_ = absl::StrCat(goal, ".", absl::Hex(random(), absl::kZeroPad8), ".tmp");
      descriptor_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && errno == EEXIST);
    if (descriptor_ < 0) status_ = Error(errno);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    unlink(name_.c_str());
  }

  // After the first error nothing more is written; MoveToGoal returns it.
  void Write(const void* data, std::size_t size) {
    const char* at = static_cast<const char*>(data);
    while (status_.ok() && size > 0) {
      const ssize_t count = write(descriptor_, at, size);
      if (count < 0) {
        if (errno != EINTR) status_ = Error(errno);
        continue;
      }
      at += count;
      size -= static_cast<std::size_t>(count);
    }
  }

  absl::Status MoveToGoal() {
    if (status_.ok() && fsync(descriptor_) != 0) status_ = Error(errno);
    if (status_.ok() && std::rename(name_.c_str(), goal_.c_str()) != 0) status_ = Error(errno);
    if (!status_.ok()) return status_;
    close(descriptor_);
    descriptor_ = -1;
    return status_;
  }

 private:
  absl::Status Error(int error) const {
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
      return absl::ResourceExhaustedError(absl::StrCat(goal_, ": ", std::strerror(error)));
    }
    return OpenError(error, goal_);
  }

  const std::string goal_;
  std::string name_;
  int descriptor_ = -1;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> SafetensorsHeader(absl::Span<const TensorToWrite> tensors,
                                              const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (absl::Status check = CheckTensor(tensor); !check.ok()) return check;
    if (header.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" is given twice"));
    }
    const std::size_t end = offset + tensor.bytes.size();
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::type_error&) {
    return absl::InvalidArgumentError("a tensor's name or a metadata string is not UTF-8");
  }
  while (text.size() % 8 != 0) text.push_back(' ');
  const std::uint64_t length = text.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<std::string> header = SafetensorsHeader(tensors, metadata);
  if (!header.ok()) return header.status();
  TemporaryFile file(path);
  file.Write(header->data(), header->size());
  for (const TensorToWrite& tensor : tensors) file.Write(tensor.bytes.data(), tensor.bytes.size());
  return file.MoveToGoal();
}

}  // namespace attnd::files
