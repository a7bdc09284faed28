// A file descriptor with an owner.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace attnd::files {

// Closes its descriptor when it goes; a negative one is none.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { Close(); }

  int get() const { return value_; }

  // The descriptor, which the caller closes.
  int Release() { return std::exchange(value_, -1); }

  // Closes it now. False with errno if that fails: some file systems report a failed write only here.
  bool Close() {
    const int value = Release();
    return value < 0 || close(value) == 0 || errno == EINTR;
  }

 private:
  int value_;
};

}  // namespace attnd::files
