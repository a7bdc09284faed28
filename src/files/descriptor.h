// An owned file descriptor.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace attnd::files {

// Closes its descriptor on destruction. A negative descriptor means that it holds none.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { Close(); }

  int get() const { return value_; }

  // Gives up the descriptor: the caller must close it.
  int Release() { return std::exchange(value_, -1); }

  // Closes the descriptor now. Returns false and sets errno on failure: some file systems report a failed write only
  // here.
  bool Close() {
    const int value = Release();
    return value < 0 || close(value) == 0 || errno == EINTR;
  }

 private:
  int value_;
};

}  // namespace attnd::files
