#include "memory/no_memory.h"

#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::memory {
namespace {

TEST(NoMemoryTest, WhatIsReturnedIsHandedOn) {
  EXPECT_TRUE(CatchNoMemory([] { return absl::OkStatus(); }).ok());
  EXPECT_EQ(CatchNoMemory([] { return absl::NotFoundError("x"); }), absl::NotFoundError("x"));
  int calls = 0;
  EXPECT_TRUE(CatchNoMemoryIn([&] { ++calls; }).ok());
  EXPECT_EQ(calls, 1);
}

TEST(NoMemoryTest, AnAllocationThatFailsIsResourceExhausted) {
  EXPECT_EQ(CatchNoMemoryIn([] { throw std::bad_alloc(); }), NoMemoryError());
  EXPECT_EQ(CatchNoMemoryIn([] { throw std::bad_array_new_length(); }), NoMemoryError());
  // As containers say it.
  EXPECT_EQ(CatchNoMemoryIn([] { std::vector<int>().reserve(std::vector<int>().max_size() + 1); }), NoMemoryError());
  EXPECT_EQ(NoMemoryError().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(NoMemoryError().message(), "the server has no memory for this call");
}

TEST(NoMemoryTest, AThreadThatCannotBeStartedIsResourceExhausted) {
  const absl::Status status =
      CatchNoMemoryIn([] { throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)); });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

// A fault of ours is not hidden.
TEST(NoMemoryTest, OtherExceptionsPass) {
  EXPECT_THROW(static_cast<void>(CatchNoMemoryIn([] { throw std::runtime_error("x"); })), std::runtime_error);
  EXPECT_THROW(
      static_cast<void>(CatchNoMemoryIn([] { throw std::system_error(std::make_error_code(std::errc::io_error)); })),
      std::system_error);
}

TEST(NoMemoryTest, ATestLetsItThrough) {
  LetNoMemoryThroughForTest(true);
  EXPECT_THROW(static_cast<void>(CatchNoMemoryIn([] { throw std::bad_alloc(); })), std::bad_alloc);
  LetNoMemoryThroughForTest(false);
  EXPECT_EQ(CatchNoMemoryIn([] { throw std::bad_alloc(); }), NoMemoryError());
}

}  // namespace
}  // namespace attnd::memory
