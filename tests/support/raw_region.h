// Memory that a RawCaller shares with the server by hand.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "attnd/v1/attention.pb.h"
#include "gtest/gtest.h"
#include "raw_caller.h"

namespace attnd::test {

// A memfd of `bytes` bytes, as a server takes it.
inline shm::UniqueFd SealedMemfd(std::size_t bytes) {
  shm::UniqueFd fd(memfd_create("attnd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  return fd;
}

// The message that hands over the first `bytes` of one.
inline shm::Request RegisterRequest(std::uint64_t bytes) {
  shm::Request request{};
  request.magic = shm::kMagic;
  request.version = shm::kVersion;
  request.operation = shm::Operation::kRegister;
  request.size = bytes;
  return request;
}

// Not thread-safe.
class RawRegion {
 public:
  // Registers `size` bytes over the caller's connection, with no other answer on its way.
  RawRegion(const RawCaller& caller, std::size_t size) : size_(size) {
    const shm::UniqueFd fd = SealedMemfd(size);
    data_ = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    const shm::Request request = RegisterRequest(size);
    EXPECT_TRUE(caller.Send(&request, sizeof(request), {fd.get()}));
    const std::optional<shm::Reply> reply = caller.Receive();
    EXPECT_TRUE(reply.has_value() && reply->code == 0) << (reply.has_value() ? reply->message : "no reply");
    if (reply.has_value()) handle_.assign(reply->handle.begin(), reply->handle.end());
  }
  ~RawRegion() { munmap(data_, size_); }
  RawRegion(const RawRegion&) = delete;
  RawRegion& operator=(const RawRegion&) = delete;

  char* data() const { return data_; }
  std::string Read(const v1::SharedTensor& at, std::size_t size) const { return {data_ + at.offset(), size}; }

  v1::SharedTensor At(std::uint64_t offset) const {
    v1::SharedTensor tensor;
    tensor.set_region(handle_);
    tensor.set_offset(offset);
    return tensor;
  }

  // `request` with q, k and v in the region, the output and the log-sum-exp (if asked for) behind them.
  v1::ComputeAttentionRequest Shared(const v1::ComputeAttentionRequest& request, std::size_t output_bytes) const {
    v1::ComputeAttentionRequest shared = request;
    std::uint64_t offset = 0;
    const auto place = [&](const std::string& bytes) {
      std::memcpy(data_ + offset, bytes.data(), bytes.size());
      const v1::SharedTensor tensor = At(offset);
      offset += (bytes.size() + 63) / 64 * 64;
      return tensor;
    };
    *shared.mutable_q_shared() = place(request.q());
    *shared.mutable_k_shared() = place(request.k());
    *shared.mutable_v_shared() = place(request.v());
    *shared.mutable_output_shared() = place(std::string(output_bytes, '\x55'));
    if (request.return_log_sum_exp()) *shared.mutable_log_sum_exp_shared() = At(offset);
    shared.clear_q();
    shared.clear_k();
    shared.clear_v();
    return shared;
  }

 private:
  const std::size_t size_;
  char* data_;
  std::string handle_;
};

}  // namespace attnd::test
