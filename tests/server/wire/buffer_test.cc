#include "server/wire/buffer.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <variant>

#include "gtest/gtest.h"
#include "memory/ledger.h"

// AddressSanitizer ends the program where malloc would return null, unless told.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace attnd::server {
namespace {

Buffer Create(std::size_t size) {
  absl::StatusOr<Buffer> buffer = Buffer::Create(size);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

TEST(BufferTest, IsAlignedMemoryOfTheSizeAskedFor) {
  for (const std::size_t size :
       std::initializer_list<std::size_t>{1, 63, 64, 4096, 4097, 5121, 65535, 65536, 65537, 1 << 20, 1234567}) {
    const Buffer buffer = Create(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    std::memset(buffer.data(), 0xab, size);
  }
}

TEST(BufferTest, SizeZeroIsEmpty) {
  Buffer buffer = Create(0);
  EXPECT_EQ(buffer.size(), 0u);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(std::move(buffer).ToSlice().size(), 0u);
}

TEST(BufferTest, WhatWasMovedFromIsEmpty) {
  Buffer first = Create(100);
  std::byte* const data = first.data();
  Buffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move): its state is promised
  EXPECT_EQ(first.size(), 0u);
  second = Create(200);
  EXPECT_EQ(second.size(), 200u);
}

TEST(BufferTest, SliceOwnsTheMemory) {
  Buffer buffer = Create(5000);
  std::memset(buffer.data(), 'x', 5000);
  const std::byte* const data = buffer.data();
  const grpc::Slice slice = std::move(buffer).ToSlice();
  EXPECT_EQ(buffer.size(), 0u);  // NOLINT(bugprone-use-after-move): its state is promised
  EXPECT_EQ(reinterpret_cast<const std::byte*>(slice.begin()), data);
  ASSERT_EQ(slice.size(), 5000u);
  EXPECT_EQ(slice.begin()[4999], 'x');
}

memory::Ticket Take60(memory::Ledger& ledger) {
  return std::get<memory::Ticket>(ledger.Take(ledger.AccountOf("peer"), 60));
}

TEST(BufferTest, LeaseIsGivenBackWithTheLastSlice) {
  memory::Ledger ledger({.total = 200});
  Buffer buffer = Create(5000);
  buffer.Hold(Take60(ledger));
  Buffer moved = std::move(buffer);
  buffer = Buffer();
  EXPECT_EQ(ledger.used_bytes(), 60);
  {
    grpc::Slice slice = std::move(moved).ToSlice();
    moved = Buffer();
    const grpc::Slice copy = slice;
    slice = grpc::Slice();
    EXPECT_EQ(ledger.used_bytes(), 60);
  }
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(BufferTest, LeaseIsGivenBackWithABufferThatIsNotSent) {
  memory::Ledger ledger({.total = 200});
  Buffer buffer = Create(5000);
  buffer.Hold(Take60(ledger));
  buffer = Buffer();
  EXPECT_EQ(ledger.used_bytes(), 0);
}

// By either move, and a buffer that is moved into gives back what it held.
TEST(BufferTest, LeaseMovesWithTheBytes) {
  memory::Ledger ledger({.total = 400});
  Buffer first = Create(5000);
  first.Hold(Take60(ledger));
  Buffer second = Create(100);
  second.Hold(Take60(ledger));
  EXPECT_EQ(ledger.used_bytes(), 120);
  second = std::move(first);
  EXPECT_EQ(ledger.used_bytes(), 60) << "what it held before goes";
  first = Buffer();
  EXPECT_EQ(ledger.used_bytes(), 60) << "it is the second one's now";
  {
    Buffer third(std::move(second));
    second = Buffer();
    EXPECT_EQ(ledger.used_bytes(), 60);
    grpc::Slice slice = std::move(third).ToSlice();
    third = Buffer();
    EXPECT_EQ(ledger.used_bytes(), 60);
  }
  EXPECT_EQ(ledger.used_bytes(), 0);
}

TEST(BufferTest, AbsurdSizesAreRefused) {
  for (const std::size_t size : {std::size_t{1} << 62, std::numeric_limits<std::size_t>::max()}) {
    EXPECT_EQ(Buffer::Create(size).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

}  // namespace
}  // namespace attnd::server
