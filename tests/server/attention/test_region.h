// Shared memory with one region, as a caller of this process would have it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "attnd/shm/unique_fd.h"
#include "attnd/v1/attention.pb.h"
#include "gtest/gtest.h"
#include "server/shm/shared_memory.h"

namespace attnd::server {

class TestRegion {
 public:
  explicit TestRegion(std::size_t size = 1 << 20) : size_(size) { handle_ = Register(); }

  // A further region of the same size.
  shm::Handle Register() {
    const shm::UniqueFd fd(memfd_create("test_region", MFD_ALLOW_SEALING | MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size_)), 0);
    EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    const absl::StatusOr<shm::Handle> handle = memory.Register(1, "user", fd.get(), size_);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return *handle;
  }

  v1::SharedTensor At(std::uint64_t offset) const { return At(handle_, offset); }
  static v1::SharedTensor At(const shm::Handle& handle, std::uint64_t offset) {
    v1::SharedTensor tensor;
    tensor.set_region(handle.data(), handle.size());
    tensor.set_offset(offset);
    return tensor;
  }

  char* data() const { return reinterpret_cast<char*>(memory.Resolve("", At(0), size_)->data); }
  std::string_view Read(std::uint64_t offset, std::size_t size) const { return {data() + offset, size}; }
  v1::SharedTensor Put(std::uint64_t offset, std::string_view bytes) const {
    std::memcpy(data() + offset, bytes.data(), bytes.size());
    return At(offset);
  }

  SharedMemory memory{SharedMemoryLimits{}};

 private:
  const std::size_t size_;
  shm::Handle handle_;
};

}  // namespace attnd::server
