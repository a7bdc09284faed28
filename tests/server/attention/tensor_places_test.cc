// Where tensors may lie in shared memory: each pair of them at every distance at which they touch.

#include "server/attention/tensor_places.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attention/test_region.h"
#include "errors/field_error.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

// Rows of 4 FP32 values: 64 bytes each of q, k and v, as of the output; 16 of the log-sum-exp.
constexpr Shape kShape{.batch = 1, .heads = 1, .rows = 4, .dim = 4};
constexpr std::int64_t kBytes = 64, kLogSumExpBytes = 16;
constexpr std::uint64_t kAway = 4096;

// Offsets of all parts.
struct Offsets {
  std::uint64_t q = kAway, k = 2 * kAway, v = 3 * kAway, output = 4 * kAway, log_sum_exp = 5 * kAway;
};

class TensorPlacesTest : public testing::Test {
 protected:
  absl::Status Place(const Offsets& at, const shm::Handle* of_results = nullptr) {
    std::shared_ptr<SharedParts> parts;
    TensorPlaces places(v1::LAYOUT_UNSPECIFIED, &region_.memory, parts);
    const auto result = [&](std::uint64_t offset) {
      return of_results == nullptr ? region_.At(offset) : TestRegion::At(*of_results, offset);
    };
    for (const auto& [field, part, offset] :
         {std::tuple("q", &SharedParts::q, at.q), std::tuple("k", &SharedParts::k, at.k),
          std::tuple("v", &SharedParts::v, at.v)}) {
      kernel::TensorView view{};
      view.dtype = tensor::DType::kF32;
      const v1::SharedTensor tensor = region_.At(offset);
      const absl::Status status = places.Set(field, {}, &tensor, part, kShape, view);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(view.segment_count, 1);
      EXPECT_EQ(view.segments->size, static_cast<std::size_t>(kBytes));
      EXPECT_EQ(view.segments->data, reinterpret_cast<const std::byte*>(region_.data()) + offset);
    }
    absl::Status status = places.SetOutput(result(at.output), kBytes);
    if (status.ok()) status = places.SetLogSumExp(result(at.log_sum_exp), kLogSumExpBytes);
    return status;
  }

  TestRegion region_;
};

void ExpectRefused(const absl::Status& status, const std::string& field) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const auto fault = errors::FaultOf(status);
  ASSERT_TRUE(fault.has_value()) << status;
  EXPECT_EQ(fault->field, field);
}

TEST_F(TensorPlacesTest, ResultsOverlapNothing) {
  ASSERT_TRUE(Place({}).ok());
  const shm::Handle other = region_.Register();
  const struct {
    const char* what;
    std::uint64_t Offsets::*written;
    std::int64_t written_bytes;
    std::uint64_t Offsets::*beside;
    std::int64_t beside_bytes;
  } kPairs[] = {
      {"output.q", &Offsets::output, kBytes, &Offsets::q, kBytes},
      {"output.k", &Offsets::output, kBytes, &Offsets::k, kBytes},
      {"output.v", &Offsets::output, kBytes, &Offsets::v, kBytes},
      {"log_sum_exp.q", &Offsets::log_sum_exp, kLogSumExpBytes, &Offsets::q, kBytes},
      {"log_sum_exp.k", &Offsets::log_sum_exp, kLogSumExpBytes, &Offsets::k, kBytes},
      {"log_sum_exp.v", &Offsets::log_sum_exp, kLogSumExpBytes, &Offsets::v, kBytes},
      {"log_sum_exp.output", &Offsets::log_sum_exp, kLogSumExpBytes, &Offsets::output, kBytes},
  };
  for (const auto& pair : kPairs) {
    const std::string what = pair.what, field = what.substr(0, what.find('.')) + "_shared.offset";
    for (std::int64_t distance = -pair.written_bytes - 4; distance <= pair.beside_bytes + 4; distance += 4) {
      SCOPED_TRACE(what + " at " + std::to_string(distance));
      Offsets at;
      at.*pair.written = static_cast<std::uint64_t>(static_cast<std::int64_t>(at.*pair.beside) + distance);
      const bool apart = distance <= -pair.written_bytes || distance >= pair.beside_bytes;
      if (apart) {
        EXPECT_TRUE(Place(at).ok()) << Place(at);
      } else {
        ExpectRefused(Place(at), field);
      }
      // At the same offsets of another region.
      if (pair.beside != &Offsets::output) {
        EXPECT_TRUE(Place(at, &other).ok()) << Place(at, &other);
      }
    }
  }
}

TEST_F(TensorPlacesTest, ALogSumExpIsAlignedAndAskedFor) {
  for (std::uint64_t more = 0; more < 8; ++more) {
    Offsets at;
    at.log_sum_exp += more;
    if (more % 4 == 0) {
      EXPECT_TRUE(Place(at).ok()) << more;
    } else {
      ExpectRefused(Place(at), "log_sum_exp_shared.offset");
    }
  }
  std::shared_ptr<SharedParts> parts;
  TensorPlaces places(v1::LAYOUT_UNSPECIFIED, &region_.memory, parts);
  ExpectRefused(places.SetLogSumExp(region_.At(0), 0), "log_sum_exp_shared");
  // The output need not be aligned.
  EXPECT_TRUE(Place({.output = 4 * kAway + 1}).ok());
}

TEST_F(TensorPlacesTest, ATensorIsSentOrShared) {
  const struct {
    const char* field;
    SharedParts::Part SharedParts::*part;
  } kTensors[] = {{"q", &SharedParts::q}, {"k", &SharedParts::k}, {"v", &SharedParts::v}};
  for (const auto& [field, part] : kTensors) {
    const v1::SharedTensor at = region_.At(0);
    for (const std::size_t sent : {1U, 63U, 64U, 65U}) {
      std::shared_ptr<SharedParts> parts;
      TensorPlaces places(v1::LAYOUT_UNSPECIFIED, &region_.memory, parts);
      kernel::TensorView view{};
      TensorBytes bytes;
      bytes.size = sent;
      ExpectRefused(places.Set(field, bytes, &at, part, kShape, view), field);
    }
    // Up to the region's last byte, and one beyond it.
    for (const std::uint64_t offset : {std::uint64_t{(1 << 20) - kBytes}, std::uint64_t{(1 << 20) - kBytes + 1}}) {
      std::shared_ptr<SharedParts> parts;
      TensorPlaces places(v1::LAYOUT_UNSPECIFIED, &region_.memory, parts);
      kernel::TensorView view{};
      const v1::SharedTensor last = region_.At(offset);
      EXPECT_EQ(places.Set(field, {}, &last, part, kShape, view).ok(), offset % 2 == 0) << offset;
    }
  }
}

TEST_F(TensorPlacesTest, WithoutSharedMemoryAllOfItIsRefused) {
  std::shared_ptr<SharedParts> parts;
  TensorPlaces places(v1::LAYOUT_UNSPECIFIED, nullptr, parts);
  const v1::SharedTensor at = region_.At(0);
  kernel::TensorView view{};
  const absl::Status statuses[] = {places.Set("q", {}, &at, &SharedParts::q, kShape, view),
                                   places.SetOutput(at, kBytes), places.SetLogSumExp(at, kLogSumExpBytes)};
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_TRUE(errors::FaultOf(status).has_value());
  }
}

}  // namespace
}  // namespace attnd::server
