// The heap in a build without the allocator.

#include "gtest/gtest.h"
#include "heap/heap.h"
#include "heap/trimmer.h"

namespace attnd::heap {
namespace {

TEST(LibcHeapTest, SaysThatItIsNotInForce) {
  Configure();
  GiveBack(0);
  EXPECT_FALSE(IsInForce());
  EXPECT_EQ(Name(), "libc");
  EXPECT_EQ(GetUsage().in_use, 0U);
  const Trimmer trimmer([] { return std::int64_t{0}; }, absl::Milliseconds(1));
}

}  // namespace
}  // namespace attnd::heap
