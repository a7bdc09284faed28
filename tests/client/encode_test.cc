// Messages that borrow the caller's memory: who keeps it, and until when.
#include "client/src/encode.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "test_request.h"

namespace attnd::client {
namespace {

// A tensor with an owner is kept by it, and the others by the loan, until the last slice is gone; and no longer.
TEST(EncodeTest, EachTensorIsKeptByItsOwnerUntilItWasSent) {
  TestRequest t(Large());
  const Shape shape = *CheckRequest(t.request);
  for (const bool piece : {false, true}) {
    for (unsigned owned = 0; owned < 8; ++owned) {
      ComputeRequest request = t.request;
      TensorView* const tensors[] = {&request.q, &request.k, &request.v};
      std::vector<std::weak_ptr<const void>> owners;
      for (unsigned i = 0; i < 3; ++i) {
        if ((owned >> i & 1) == 0) continue;
        tensors[i]->owner = std::make_shared<int>();
        owners.push_back(tensors[i]->owner);
      }
      std::shared_ptr<const void> loan = std::make_shared<int>();
      const std::weak_ptr<const void> lent = loan;
      grpc::ByteBuffer bytes = piece ? EncodePiece(1, true, request, shape, loan) : EncodeRequest(request, shape, loan);
      loan.reset();
      request = {};
      for (const auto& owner : owners) EXPECT_FALSE(owner.expired()) << owned;
      EXPECT_EQ(lent.expired(), owned == 7) << owned;
      bytes.Clear();
      for (const auto& owner : owners) EXPECT_TRUE(owner.expired()) << owned;
      EXPECT_TRUE(lent.expired()) << owned;
    }
  }
}

}  // namespace
}  // namespace attnd::client
