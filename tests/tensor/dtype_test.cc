#include "tensor/dtype.h"

#include <gtest/gtest.h>

namespace attnd::tensor {
namespace {

TEST(DType, NamesAreReadBack) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) EXPECT_EQ(DTypeFromName(NameOf(dtype)), dtype);
}

TEST(DType, OtherNamesAreNone) {
  for (const char* name : {"", "F", "f32", "F64", "F32 ", "I32"}) EXPECT_EQ(DTypeFromName(name), std::nullopt) << name;
}

}  // namespace
}  // namespace attnd::tensor
