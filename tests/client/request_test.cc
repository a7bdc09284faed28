// Requests that are refused before anything is sent: one good request, one field broken at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "attnd/client.h"
#include "bounded.h"
#include "test_request.h"

namespace attnd::client {
namespace {

struct Broken {
  const char* name;
  std::function<void(ComputeRequest&)> how;
  const char* field;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

// Nobody listens here; a request that passes the checks fails with another code.
constexpr char kNobody[] = "unix:///nonexistent/attnd.sock";

ClientOptions Once() {
  ClientOptions options;
  options.retry.enabled = false;
  return options;
}

class RefusedRequest : public testing::TestWithParam<Broken> {};

TEST_P(RefusedRequest, NamesTheField) {
  Client client = *Client::Create(kNobody, Once());
  TestRequest t;
  ASSERT_EQ(client.Compute(t.request).status().code(), absl::StatusCode::kUnavailable);
  GetParam().how(t.request);
  const absl::Status status = client.Compute(t.request).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  ASSERT_TRUE(detail.has_value()) << status;
  EXPECT_EQ(detail->field, GetParam().field);
  EXPECT_EQ(status.message(), detail->field + ": expected " + detail->expected + ", got " + detail->got);
  EXPECT_EQ(Get(client.ComputeFuture(t.request)).status(), status);
}

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

INSTANTIATE_TEST_SUITE_P(
    EachField, RefusedRequest,
    testing::ValuesIn(std::vector<Broken>{
        {"NoModel", [](ComputeRequest& r) { r.model = ""; }, "model"},
        {"NoData", [](ComputeRequest& r) { r.v.data = nullptr; }, "v"},
        {"ZeroBatch", [](ComputeRequest& r) { r.q.sizes[0] = 0; }, "q.batch"},
        {"NegativeHeads", [](ComputeRequest& r) { r.k.sizes[1] = -2; }, "k.heads"},
        {"ZeroSequence", [](ComputeRequest& r) { r.v.sizes[2] = 0; }, "v.sequence"},
        {"NegativeDim", [](ComputeRequest& r) { r.q.sizes[3] = std::numeric_limits<std::int64_t>::min(); },
         "q.head_dim"},
        {"OtherBatchOfK", [](ComputeRequest& r) { r.k.sizes[0] = 3; }, "k.batch"},
        {"OtherBatchOfV", [](ComputeRequest& r) { r.v.sizes[0] = 3; }, "v.batch"},
        {"OtherBatchOfQ", [](ComputeRequest& r) { r.q.sizes[0] = 3; }, "q.batch"},
        {"OtherHeadsOfK", [](ComputeRequest& r) { r.q.sizes[1] = r.v.sizes[1] = 3; }, "k.heads"},
        {"OtherHeadsOfVThanAllOthers", [](ComputeRequest& r) { r.q.sizes[1] = r.k.sizes[1] = 3; }, "v.heads"},
        {"HeadsOfKNotDivided",
         [](ComputeRequest& r) {
           r.q.sizes[1] = 6;
           r.k.sizes[1] = 4;
         },
         "k.heads"},
        {"OtherDimOfK", [](ComputeRequest& r) { r.k.sizes[3] = 9; }, "k.head_dim"},
        {"OtherHeadsOfV", [](ComputeRequest& r) { r.v.sizes[1] = 1; }, "v.heads"},
        {"OtherLengthOfV", [](ComputeRequest& r) { r.v.sizes[2] = 6; }, "v.sequence"},
        {"HeadsNotDivided", [](ComputeRequest& r) { r.k.sizes[1] = r.v.sizes[1] = 3; }, "kv_heads"},
        {"MoreKeyHeads", [](ComputeRequest& r) { r.k.sizes[1] = r.v.sizes[1] = 8; }, "kv_heads"},
        {"UnknownDtype", [](ComputeRequest& r) { r.q.dtype = r.k.dtype = r.v.dtype = static_cast<DType>(9); }, "dtype"},
        {"MixedDtypes", [](ComputeRequest& r) { r.k.dtype = DType::kBf16; }, "k.dtype"},
        {"UnknownOutputDtype", [](ComputeRequest& r) { r.output_dtype = static_cast<DType>(0); }, "output_dtype"},
        {"UnknownLayout", [](ComputeRequest& r) { r.layout = static_cast<Layout>(5); }, "layout"},
        {"ScaleNan", [](ComputeRequest& r) { r.scale = std::nanf(""); }, "scale"},
        {"ScaleInfinite", [](ComputeRequest& r) { r.scale = -INFINITY; }, "scale"},
        {"OffsetTooLow", [](ComputeRequest& r) { r.query_offset = -4; }, "query_offset"},
        {"OffsetTooHigh", [](ComputeRequest& r) { r.query_offset = (std::int64_t{1} << 31) - 3; }, "query_offset"},
        {"NegativeFirstHead", [](ComputeRequest& r) { r.first_head = -1; }, "first_head"},
        {"TooFewLengths", [](ComputeRequest& r) { r.key_lengths = {1}; }, "key_lengths"},
        {"LengthTooLong",
         [](ComputeRequest& r) {
           r.key_lengths = {5, 6};
         },
         "key_lengths[1]"},
        {"NegativeLength",
         [](ComputeRequest& r) {
           r.query_lengths = {-1, 0};
         },
         "query_lengths[0]"},
        {"OffsetsBesideAnOffset",
         [](ComputeRequest& r) {
           r.query_offset = 0;
           r.query_offsets = {0, 0};
         },
         "query_offsets"},
        {"TooManyOffsets",
         [](ComputeRequest& r) {
           r.query_offsets = {0, 0, 0};
         },
         "query_offsets"},
        {"AnOffsetTooLow",
         [](ComputeRequest& r) {
           r.query_offsets = {-3, -4};
         },
         "query_offsets[1]"},
        {"AnOffsetTooHigh",
         [](ComputeRequest& r) {
           r.query_offsets = {(std::int64_t{1} << 31) - 3, 0};
         },
         "query_offsets[0]"},
        {"TooFewStarts", [](ComputeRequest& r) { r.key_starts = {0}; }, "key_starts"},
        {"StartTooLate",
         [](ComputeRequest& r) {
           r.key_starts = {5, 6};
         },
         "key_starts[1]"},
        {"NegativeStart",
         [](ComputeRequest& r) {
           r.key_starts = {-1, 0};
         },
         "key_starts[0]"},
        {"WindowBehind", [](ComputeRequest& r) { r.window_left = -1; }, "window_left"},
        {"WindowTooWide", [](ComputeRequest& r) { r.window_right = std::int64_t{1} << 31; }, "window_right"},
        {"TooFewPrefixes", [](ComputeRequest& r) { r.prefix_lengths = {0}; }, "prefix_lengths"},
        {"PrefixTooLong",
         [](ComputeRequest& r) {
           r.prefix_lengths = {5, 6};
         },
         "prefix_lengths[1]"},
        {"PrefixWithoutCausalMask",
         [](ComputeRequest& r) {
           r.mask = Mask::kNone;
           r.prefix_lengths = {1, 1};
         },
         "prefix_lengths"},
        {"KeySegmentsAlone", [](ComputeRequest& r) { r.key_segments = {0, 5}; }, "key_segments"},
        {"KeySegmentsMissing",
         [](ComputeRequest& r) {
           r.query_segments = {0, 3};
         },
         "key_segments"},
        {"SegmentsThatDoNotBegin",
         [](ComputeRequest& r) {
           r.query_segments = {0, 3};
           r.key_segments = {0, 6};
         },
         "key_segments[1]"},
        {"SegmentsBesideLengths",
         [](ComputeRequest& r) {
           r.query_segments = {0, 3};
           r.key_segments = {0, 5};
           r.key_lengths = {5, 5};
         },
         "key_lengths"},
        {"SegmentsOfHugeRows",
         [](ComputeRequest& r) {
           r.q.sizes[2] = r.k.sizes[2] = r.v.sizes[2] = kHuge;
           r.query_segments = {0, 3};
         },
         "query_segments"},
        {"SharedKeysOfOtherValues",
         [](ComputeRequest& r) {
           r.k.sizes[0] = 1;
           r.kv_rows = {0, 0};
         },
         "v.batch"},
        {"SharedKeysThatAreNotThere",
         [](ComputeRequest& r) {
           r.k.sizes[0] = r.v.sizes[0] = 1;
           r.kv_rows = {0, 1};
         },
         "kv_rows[1]"},
        {"TooFewKeyBiases", [](ComputeRequest& r) { r.key_bias = {1}; }, "key_bias"},
        {"TooFewKeyBits", [](ComputeRequest& r) { r.key_bits = {1}; }, "key_bits"},
        {"TooManyKeyBits",
         [](ComputeRequest& r) {
           r.key_bits = {1, 1, 1};
         },
         "key_bits"},
        {"KeyBitsOfAnOverflowingSize",
         [](ComputeRequest& r) {
           r.q.sizes[0] = r.k.sizes[0] = r.v.sizes[0] = std::int64_t{1} << 61;
           r.k.sizes[2] = r.v.sizes[2] = 64;
           r.key_bits = {1};
         },
         "key_bits"},
        {"ModelWithoutBias", [](ComputeRequest& r) { r.bias = Bias::kNone; }, "model"},
        {"VersionWithoutBias",
         [](ComputeRequest& r) {
           r.bias = Bias::kNone;
           r.model = "";
           r.version = 1;
         },
         "version"},
        {"TableWithoutBias",
         [](ComputeRequest& r) {
           r.bias = Bias::kNone;
           r.model = "";
           r.table = "decoder";
         },
         "table"},
        {"FirstHeadWithoutBias",
         [](ComputeRequest& r) {
           r.bias = Bias::kNone;
           r.model = "";
           r.first_head = 0;
         },
         "first_head"},
        {"DestinationTooSmall",
         [](ComputeRequest& r) {
           r.output = {&r, 4};
         },
         "output"},
        {"LogSumExpTooLarge",
         [](ComputeRequest& r) {
           r.log_sum_exp = {&r, 100};
         },
         "log_sum_exp"},
        {"OverflowingProduct", [](ComputeRequest& r) { r.q.sizes[2] = kHuge; }, "q",
         absl::StatusCode::kResourceExhausted},
        {"OverflowingBytes", [](ComputeRequest& r) { r.q.sizes[3] = r.k.sizes[3] = std::int64_t{1} << 58; }, "q",
         absl::StatusCode::kResourceExhausted},
        {"KeysTooLarge", [](ComputeRequest& r) { r.k.sizes[2] = r.v.sizes[2] = std::int64_t{1} << 30; }, "k",
         absl::StatusCode::kResourceExhausted},
        {"ResultTooLarge", [](ComputeRequest& r) { r.v.sizes[3] = std::int64_t{1} << 25; }, "v",
         absl::StatusCode::kResourceExhausted},
        {"SumTooLarge",
         [](ComputeRequest& r) {
           r.k.sizes[2] = r.v.sizes[2] = std::int64_t{1} << 23;
           r.v.sizes[3] = 8;
         },
         "q, k and v", absl::StatusCode::kResourceExhausted},
    }),
    [](const auto& run) { return run.param.name; });

// Nobody listens: what passes the checks is UNAVAILABLE.
TEST(AcceptedRequest, OutermostMasks) {
  Client client = *Client::Create(kNobody, Once());
  const std::function<void(ComputeRequest&)> kGood[] = {
      [](ComputeRequest& r) {
        r.query_offsets = {-3, (std::int64_t{1} << 31) - 4};
        r.key_starts = {0, 5};
        r.key_lengths = {5, 0};
        r.key_bits = {0, 0xff};
      },
      [](ComputeRequest& r) {
        r.bias = Bias::kNone;
        r.model = "";
      },
  };
  for (const auto& good : kGood) {
    TestRequest t;
    good(t.request);
    EXPECT_EQ(client.Compute(t.request).status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST(PackKeyBits, AKeyInABitAndASequenceInBytesOfItsOwn) {
  std::vector<unsigned char> mask(2 * 9, 0);
  EXPECT_THAT(PackKeyBits(mask, 9), testing::ElementsAre(0, 0, 0, 0));
  mask[0] = mask[8] = 1;            // of the first sequence
  mask[9 + 1] = mask[9 + 7] = 255;  // of the second
  EXPECT_THAT(PackKeyBits(mask, 9), testing::ElementsAre(1, 1, 0x82, 0));
  EXPECT_THAT(PackKeyBits(absl::MakeSpan(mask).first(17), 9), testing::ElementsAre(1, 1));
  EXPECT_THAT(PackKeyBits(mask, 18), testing::ElementsAre(1, 5, 1));
  EXPECT_THAT(PackKeyBits({}, 3), testing::IsEmpty());
  EXPECT_THAT(PackKeyBits(mask, 0), testing::IsEmpty());
}

TEST(ClientCreate, RefusesBadOptions) {
  EXPECT_EQ(Client::Create("").status().code(), absl::StatusCode::kInvalidArgument);
  ClientOptions options;
  options.load_balancing_policy = "random";
  EXPECT_EQ(GetErrorDetail(Client::Create(kNobody, options).status())->field, "load_balancing_policy");
  options = {};
  options.keepalive_time = absl::ZeroDuration();
  EXPECT_EQ(GetErrorDetail(Client::Create(kNobody, options).status())->field, "keepalive_time");
}

}  // namespace
}  // namespace attnd::client
