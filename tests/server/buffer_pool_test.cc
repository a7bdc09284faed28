#include "server/buffer_pool.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

// AddressSanitizer ends the program where malloc would return null, unless told.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace attnd::server {
namespace {

Buffer Get(BufferPool& pool, std::size_t size) {
  absl::StatusOr<Buffer> buffer = pool.Get(size);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

TEST(BufferPoolTest, GivesAlignedMemoryOfTheSizeAskedFor) {
  BufferPool pool(1 << 24);
  for (const std::size_t size : {1, 63, 64, 4096, 4097, 5121, 65535, 65536, 65537, 1 << 20, 1234567}) {
    const Buffer buffer = Get(pool, size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    std::memset(buffer.data(), 0xab, size);
  }
}

TEST(BufferPoolTest, SizeZeroIsEmpty) {
  BufferPool pool(1 << 20);
  Buffer buffer = Get(pool, 0);
  EXPECT_EQ(buffer.size(), 0u);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(std::move(buffer).ToSlice().size(), 0u);
}

TEST(BufferPoolTest, ReleasedMemoryIsUsedAgain) {
  BufferPool pool(1 << 20);
  Buffer first = Get(pool, 100000);
  std::byte* const data = first.data();
  first = Buffer();
  EXPECT_GE(pool.idle_bytes(), 100000u);
  EXPECT_LE(pool.idle_bytes(), 125000u);
  EXPECT_EQ(Get(pool, 99999).data(), data);
}

TEST(BufferPoolTest, KeepsNoMoreThanItsBound) {
  BufferPool pool(300000);
  std::vector<Buffer> buffers;
  for (int i = 0; i < 10; ++i) buffers.push_back(Get(pool, 98304));
  EXPECT_EQ(pool.idle_bytes(), 0u);
  buffers.clear();
  EXPECT_EQ(pool.idle_bytes(), 3 * 98304u);
}

TEST(BufferPoolTest, SliceOwnsTheMemory) {
  BufferPool pool(1 << 20);
  Buffer buffer = Get(pool, 5000);
  std::memset(buffer.data(), 'x', 5000);
  const std::byte* const data = buffer.data();
  {
    const grpc::Slice slice = std::move(buffer).ToSlice();
    EXPECT_EQ(reinterpret_cast<const std::byte*>(slice.begin()), data);
    ASSERT_EQ(slice.size(), 5000u);
    EXPECT_EQ(slice.begin()[4999], 'x');
    EXPECT_EQ(pool.idle_bytes(), 0u);
  }
  EXPECT_GE(pool.idle_bytes(), 5000u);
}

TEST(BufferPoolTest, MemoryOutlivesThePool) {
  auto pool = std::make_unique<BufferPool>(1 << 20);
  Buffer idle = Get(*pool, 5000);
  idle = Buffer();
  const grpc::Slice slice = Get(*pool, 9000).ToSlice();
  pool.reset();
  EXPECT_EQ(slice.size(), 9000u);
}

TEST(BufferPoolTest, AbsurdSizeIsRefused) {
  BufferPool pool(1 << 20);
  EXPECT_EQ(pool.Get(std::size_t{1} << 62).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(BufferPoolTest, IsThreadSafe) {
  BufferPool pool(1 << 18);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (std::size_t i = 0; i < 500; ++i) {
        Buffer buffer = Get(pool, 1000 + i * 37);
        std::memset(buffer.data(), t, buffer.size());
        ASSERT_EQ(buffer.data()[buffer.size() - 1], static_cast<std::byte>(t));
        const grpc::Slice slice = std::move(buffer).ToSlice();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(pool.idle_bytes(), std::size_t{1} << 18);
}

}  // namespace
}  // namespace attnd::server
