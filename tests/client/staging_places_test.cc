// Where a call's tensors lie in shared memory: in the caller's regions, in a block, or in neither; what comes back from
// there, and when the block is another call's.
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/src/shape.h"
#include "client/src/staging.h"
#include "fake_local_server.h"
#include "gtest/gtest.h"
#include "temp_folder.h"
#include "test_request.h"

namespace attnd::client {
namespace {

// With and without waiting, over gRPC and the local socket.
enum class Maker { kNow, kLater, kLocal, kLocalLater };
constexpr Maker kMakers[] = {Maker::kNow, Maker::kLater, Maker::kLocal, Maker::kLocalLater};

bool IsLocal(Maker maker) { return maker == Maker::kLocal || maker == Maker::kLocalLater; }

// Of odd sizes: no part ends where an aligned one may begin. q, k, v and output have more than 16 KiB each.
constexpr Sizes kOdd = {1, 3, 3, 67, 69, 65, 67};

v1::SharedTensor TensorAt(const SharedPlace& place) {
  v1::SharedTensor tensor;
  tensor.set_region(place.region.data(), place.region.size());
  tensor.set_offset(place.offset);
  return tensor;
}

class StagingPlacesTest : public testing::Test {
 protected:
  StagingPlacesTest() {
    server_.shares_memory = true;
    for (TensorView* tensor : {&t_.request.q, &t_.request.k, &t_.request.v}) tensor->dtype = DType::kFp16;
    t_.request.return_log_sum_exp = true;
    shape_ = *CheckRequest(t_.request);
  }

  // The call's shared memory; nullopt also if it is not made in time.
  std::optional<Staged> Make(Maker maker) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    if (maker == Maker::kNow) return Staged::MakeNow(pool_, t_.request, shape_, deadline);
    if (maker == Maker::kLocal) return Staged::MakeLocal(pool_, t_.request, shape_, deadline);
    const auto made = std::make_shared<std::promise<std::optional<Staged>>>();
    std::future<std::optional<Staged>> later = made->get_future();
    if (maker == Maker::kLater) {
      Staged::MakeLater(pool_, t_.request, shape_, deadline,
                        [made](std::optional<Staged> staged) { made->set_value(std::move(staged)); });
    } else {
      Staged::MakeLocalLater(pool_, t_.request, shape_, deadline,
                             [made](Staged staged) { made->set_value(std::move(staged)); });
    }
    if (later.wait_for(std::chrono::seconds(20)) == std::future_status::ready) return later.get();
    ADD_FAILURE() << "it was not made";
    return std::nullopt;
  }

  // A region of the caller's with `bytes` from `offset` on, which lasts as long as the test.
  unsigned char* NewRegion(std::int64_t bytes, std::size_t offset) {
    regions_.push_back(*memory_->Allocate(static_cast<std::size_t>(bytes) + offset + 64));
    return static_cast<unsigned char*>(regions_.back().get()) + offset;
  }
  // Whether the server finds these bytes there.
  bool Holds(const std::optional<SharedPlace>& place, const void* bytes, std::int64_t size) {
    const unsigned char* const data = server_.SharedData(TensorAt(*place), static_cast<std::size_t>(size));
    return data != nullptr && std::memcmp(data, bytes, static_cast<std::size_t>(size)) == 0;
  }

  const test::TempFolder folder_;
  FakeLocalServer server_{folder_.path() + "/s"};
  const std::shared_ptr<SharedMemory> memory_ = std::make_shared<SharedMemory>(folder_.path() + "/s");
  const std::shared_ptr<StagingPool> pool_ = std::make_shared<StagingPool>(memory_);
  std::vector<std::shared_ptr<void>> regions_;
  TestRequest t_{kOdd};
  Shape shape_;
};

// A tensor of the request and where the call has it.
struct Part {
  const char* name;
  std::int64_t bytes;
  const std::optional<SharedPlace>* place;
};

std::array<Part, 5> PartsOf(const Shape& shape, const WireFields& fields) {
  return {{{"q", shape.q_bytes, &fields.q},
           {"k", shape.k_bytes, &fields.k},
           {"v", shape.v_bytes, &fields.v},
           {"output", shape.output_bytes, &fields.output},
           {"log_sum_exp", shape.log_sum_exp_bytes, &fields.log_sum_exp}}};
}

// All subsets of tensors that are in the caller's regions, each in one of its own.
TEST_F(StagingPlacesTest, EachTensorHasItsPlaceAndEachResultItsDestination) {
  constexpr unsigned kSubsets = 32;
  const ComputeRequest plain = t_.request;
  for (const Maker maker : kMakers) {
    for (unsigned subset = 0; subset < kSubsets; ++subset) {
      SCOPED_TRACE(testing::Message() << "maker " << static_cast<int>(maker) << ", in regions " << subset);
      regions_.clear();
      t_.request = plain;
      const std::pair<TensorView*, std::int64_t> inputs[] = {
          {&t_.request.q, shape_.q_bytes}, {&t_.request.k, shape_.k_bytes}, {&t_.request.v, shape_.v_bytes}};
      for (unsigned i = 0; i < 3; ++i) {
        if ((subset >> i & 1) == 0) continue;
        unsigned char* const to = NewRegion(inputs[i].second, 10 * i + 2);
        std::memcpy(to, inputs[i].first->data, static_cast<std::size_t>(inputs[i].second));
        inputs[i].first->data = to;
      }
      if ((subset & 8) != 0) {
        t_.request.output = {NewRegion(shape_.output_bytes, 6), static_cast<std::size_t>(shape_.output_bytes)};
      }
      if ((subset & 16) != 0) {
        t_.request.log_sum_exp = {NewRegion(shape_.log_sum_exp_bytes, 12),
                                  static_cast<std::size_t>(shape_.log_sum_exp_bytes)};
      }
      std::optional<Staged> staged = Make(maker);
      ASSERT_TRUE(staged.has_value());
      EXPECT_TRUE(staged->any());
      const WireFields fields = staged->fields();
      // No two overlap.
      std::vector<std::pair<SharedPlace, std::int64_t>> places;
      for (const Part& part : PartsOf(shape_, fields)) {
        const bool log_sum_exp = part.bytes == shape_.log_sum_exp_bytes;
        if (log_sum_exp && !IsLocal(maker)) {
          EXPECT_FALSE(part.place->has_value()) << "it travels in the message";
          continue;
        }
        // If there is no block, because it would be small, the log-sum-exp travels in the message.
        if (log_sum_exp && (subset & 15) == 15 && (subset & 16) == 0) {
          EXPECT_FALSE(part.place->has_value());
          continue;
        }
        ASSERT_TRUE(part.place->has_value()) << part.name;
        if (log_sum_exp) {
          EXPECT_EQ((*part.place)->offset % sizeof(float), 0U);
        }
        for (const auto& [other, bytes] : places) {
          if (other.region != (*part.place)->region) continue;
          EXPECT_TRUE(other.offset + static_cast<std::uint64_t>(bytes) <= (*part.place)->offset ||
                      (*part.place)->offset + static_cast<std::uint64_t>(part.bytes) <= other.offset)
              << part.name;
        }
        places.emplace_back(**part.place, part.bytes);
      }
      EXPECT_TRUE(Holds(fields.q, plain.q.data, shape_.q_bytes)) << "q";
      EXPECT_TRUE(Holds(fields.k, plain.k.data, shape_.k_bytes)) << "k";
      EXPECT_TRUE(Holds(fields.v, plain.v.data, shape_.v_bytes)) << "v";
      // The server's results.
      std::memset(server_.SharedData(TensorAt(*fields.output), static_cast<std::size_t>(shape_.output_bytes)), 7,
                  static_cast<std::size_t>(shape_.output_bytes));
      const auto rows = static_cast<std::size_t>(shape_.log_sum_exp_bytes) / sizeof(float);
      const bool placed = fields.log_sum_exp.has_value();
      if (placed) {
        const std::vector<float> values(rows, 2.5F);
        std::memcpy(server_.SharedData(TensorAt(*fields.log_sum_exp), rows * sizeof(float)), values.data(),
                    rows * sizeof(float));
      }
      EXPECT_EQ(staged->copies(), (subset & 8) == 0 || (placed && (subset & 16) == 0));
      const absl::StatusOr<ComputeReply> reply = std::move(*staged).Finish(ComputeReply(), t_.request, shape_);
      ASSERT_TRUE(reply.ok()) << reply.status();
      const auto* output =
          static_cast<const unsigned char*>((subset & 8) != 0 ? t_.request.output.data : reply->output.data());
      ASSERT_NE(output, nullptr);
      for (std::int64_t i = 0; i < shape_.output_bytes; ++i) ASSERT_EQ(output[i], 7) << i;
      if ((subset & 8) == 0) {
        EXPECT_EQ(reply->output.sizes(), shape_.output_sizes);
      }
      if (placed) {
        const auto* values =
            (subset & 16) != 0 ? static_cast<const float*>(t_.request.log_sum_exp.data) : reply->log_sum_exp.data();
        if ((subset & 16) == 0) {
          ASSERT_EQ(reply->log_sum_exp.size(), rows);
        }
        for (std::size_t i = 0; i < rows; ++i) ASSERT_EQ(values[i], 2.5F) << i;
      }
    }
  }
}

// The caller's own memory, in no region.
TEST_F(StagingPlacesTest, ResultsAreCopiedToDestinationsOfEachKind) {
  std::vector<unsigned char> output(static_cast<std::size_t>(shape_.output_bytes));
  // In a region, but at an odd address: the server writes floats, so it is copied there.
  unsigned char* const odd = NewRegion(shape_.log_sum_exp_bytes, 1);
  t_.request.output = {output.data(), output.size()};
  t_.request.log_sum_exp = {odd, static_cast<std::size_t>(shape_.log_sum_exp_bytes)};
  for (const Maker maker : {Maker::kLocal, Maker::kLocalLater}) {
    std::optional<Staged> staged = Make(maker);
    ASSERT_TRUE(staged.has_value());
    const WireFields fields = staged->fields();
    ASSERT_TRUE(fields.log_sum_exp.has_value());
    EXPECT_EQ(fields.log_sum_exp->offset % sizeof(float), 0U);
    EXPECT_EQ(fields.log_sum_exp->region, fields.output->region) << "both in the block";
    std::memset(server_.SharedData(TensorAt(*fields.output), output.size()), static_cast<int>(maker) + 1,
                output.size());
    std::memset(server_.SharedData(TensorAt(*fields.log_sum_exp), static_cast<std::size_t>(shape_.log_sum_exp_bytes)),
                static_cast<int>(maker) + 10, static_cast<std::size_t>(shape_.log_sum_exp_bytes));
    ASSERT_TRUE(std::move(*staged).Finish(ComputeReply(), t_.request, shape_).ok());
    EXPECT_EQ(output.front(), static_cast<int>(maker) + 1);
    EXPECT_EQ(output.back(), static_cast<int>(maker) + 1);
    EXPECT_EQ(odd[0], static_cast<int>(maker) + 10);
    EXPECT_EQ(odd[shape_.log_sum_exp_bytes - 1], static_cast<int>(maker) + 10);
  }
}

// After a success, and if nothing was sent; after any error the server may still write.
TEST_F(StagingPlacesTest, ABlockIsUsedAgainAfterASuccessAlone) {
  for (const Maker maker : kMakers) {
    SCOPED_TRACE(static_cast<int>(maker));
    std::optional<Staged> staged = Make(maker);
    ASSERT_TRUE(staged.has_value());
    const shm::Handle block = staged->fields().q->region;
    EXPECT_EQ(pool_->idle_bytes(), 0U);
    ASSERT_TRUE(std::move(*staged).Finish(ComputeReply(), t_.request, shape_).ok());
    EXPECT_GT(pool_->idle_bytes(), 0U);
    staged = Make(maker);
    EXPECT_EQ(staged->fields().q->region, block);
    EXPECT_EQ(pool_->idle_bytes(), 0U);
    std::move(*staged).Unused();
    EXPECT_GT(pool_->idle_bytes(), 0U);
    for (const absl::StatusCode code :
         {absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled, absl::StatusCode::kUnavailable,
          absl::StatusCode::kInternal, absl::StatusCode::kResourceExhausted}) {
      staged = Make(maker);
      const shm::Handle failed = staged->fields().q->region;
      EXPECT_EQ(std::move(*staged).Finish(absl::Status(code, ""), t_.request, shape_).status().code(), code);
      staged.reset();
      EXPECT_EQ(pool_->idle_bytes(), 0U) << code;
      staged = Make(maker);
      EXPECT_NE(staged->fields().q->region, failed) << code;
      std::move(*staged).Unused();
    }
    // For the next maker.
    staged = Make(maker);
    staged.reset();
  }
}

// What is not shared is sent.
TEST_F(StagingPlacesTest, AServerThatRefusesRegionsGetsTheTensorsInTheMessage) {
  server_.shares_memory = false;
  unsigned char* const q = NewRegion(shape_.q_bytes, 0);
  std::memcpy(q, t_.request.q.data, static_cast<std::size_t>(shape_.q_bytes));
  t_.request.q.data = q;
  for (const Maker maker : kMakers) {
    const std::optional<Staged> staged = Make(maker);
    EXPECT_EQ(staged.has_value(), IsLocal(maker));
    if (staged.has_value()) {
      EXPECT_FALSE(staged->any());
      EXPECT_FALSE(staged->copies());
    }
  }
}

}  // namespace
}  // namespace attnd::client
