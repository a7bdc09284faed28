#include "server/wire/codec.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

std::string Varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string TagOf(std::uint32_t number, std::uint32_t type) { return Varint(number << 3 | type); }

std::string BytesField(std::uint32_t number, const std::string& bytes) {
  return TagOf(number, 2) + Varint(bytes.size()) + bytes;
}

std::string Groups(int depth) {
  std::string bytes;
  for (int i = 0; i < depth; ++i) bytes += TagOf(50, 3);
  for (int i = 0; i < depth; ++i) bytes += TagOf(50, 4);
  return bytes;
}

class CodecTest : public testing::Test {
  SilentProtobuf silent_;
};

struct Case {
  std::string name;
  std::string bytes;
};

std::vector<Case> Cases() {
  const std::string q = BytesField(100, "query bytes");
  const std::string heads = TagOf(5, 0) + Varint(8);
  return {
      {"empty", ""},
      {"every_field_in_order", BytesField(1, "book") + heads + q + BytesField(101, "key") + BytesField(102, "value")},
      {"tensors_first", BytesField(102, "value") + q + BytesField(101, "key") + heads + BytesField(1, "book")},
      {"last_scalar_wins", heads + TagOf(5, 0) + Varint(3)},
      {"last_tensor_wins", q + heads + BytesField(100, "other")},
      {"last_tensor_wins_empty", q + BytesField(100, "")},
      {"packed_lengths", BytesField(17, Varint(1) + Varint(300))},
      {"unpacked_lengths", TagOf(17, 0) + Varint(1) + q + TagOf(17, 0) + Varint(300)},
      {"unknown_fields",
       BytesField(999, "abc") + q + TagOf(998, 0) + Varint(7) + TagOf(997, 1) + "12345678" + TagOf(996, 5) + "1234"},
      {"tensor_as_varint", TagOf(100, 0) + Varint(5) + q},
      {"tensor_as_fixed32", q + TagOf(100, 5) + "1234"},
      {"tensor_as_fixed64", q + TagOf(101, 1) + "12345678"},
      {"tensor_as_group", TagOf(100, 3) + BytesField(100, "in a group") + TagOf(100, 4) + q},
      {"group_with_tensor_inside", TagOf(50, 3) + q + TagOf(50, 4)},
      {"group_ended_by_another_number", TagOf(50, 3) + TagOf(51, 4)},
      {"group_without_end", TagOf(50, 3) + q},
      {"end_of_no_group", TagOf(50, 4)},
      {"end_of_no_group_after_tensor", q + TagOf(100, 4)},
      {"groups_99", Groups(99)},
      {"groups_100", Groups(100)},
      {"groups_101", Groups(101)},
      {"groups_100000", Groups(100000)},
      {"tag_zero", std::string(1, '\0')},
      {"tag_zero_after_tensor", q + std::string(1, '\0')},
      {"field_zero", std::string("\x02\x00", 2)},
      {"wire_type_6", TagOf(5, 6)},
      {"wire_type_7", TagOf(5, 7)},
      {"tag_truncated", q + "\xa2"},
      {"tag_overlong", std::string("\xa2\x86\x80\x80\x00\x01q", 7)},
      {"tag_of_five_bytes_with_surplus_bits", std::string("\xa2\x86\x80\x80\x70\x01q", 7)},
      {"tag_of_six_bytes", std::string("\xa2\x86\x80\x80\x80\x00\x01q", 8)},
      {"varint_truncated", TagOf(5, 0) + "\x80\x80"},
      {"varint_of_ten_bytes", TagOf(5, 0) + std::string(9, '\x80') + "\x01"},
      {"varint_of_ten_bytes_with_surplus_bits", TagOf(5, 0) + std::string(9, '\xff') + "\x7f"},
      {"varint_of_eleven_bytes", TagOf(5, 0) + std::string(10, '\x80') + "\x01"},
      {"unknown_varint_of_eleven_bytes", TagOf(500, 0) + std::string(10, '\x80') + "\x01"},
      {"length_truncated", TagOf(100, 2)},
      {"length_beyond_the_end", TagOf(100, 2) + Varint(12) + "too short"},
      {"length_overlong", TagOf(100, 2) + std::string("\x83\x80\x80\x80\x00", 5) + "abc"},
      {"length_of_six_bytes", TagOf(100, 2) + std::string("\x83\x80\x80\x80\x80\x00", 6) + "abc"},
      {"length_2_gib", TagOf(100, 2) + Varint(std::uint64_t{1} << 31)},
      {"length_2_gib_less_one", TagOf(100, 2) + Varint((std::uint64_t{1} << 31) - 1)},
      {"length_32_bits", TagOf(100, 2) + Varint(0xffffffff)},
      {"length_64_bits", TagOf(100, 2) + Varint(~std::uint64_t{0}) + "abc"},
      {"unknown_length_64_bits", TagOf(500, 2) + Varint(~std::uint64_t{0}) + "abc"},
      {"fixed32_truncated", TagOf(14, 5) + "123"},
      {"fixed64_truncated", TagOf(500, 1) + "1234567"},
      {"model_is_no_utf8", BytesField(1, "\xff\xfe")},
      {"model_with_nul", BytesField(1, std::string("a\0b", 3))},
      {"shared_tensor", BytesField(22, BytesField(1, "region")) + BytesField(22, TagOf(2, 0) + Varint(4096))},
      {"shared_tensor_malformed", BytesField(22, "\xff")},
  };
}

TEST_F(CodecTest, AgreesWithProtobufHoweverTheMessageIsCut) {
  for (const Case& c : Cases()) {
    for (const std::string& cuts :
         {std::string(), std::string("\1"), std::string("\2\1\0\7", 4), std::string("\x1f")}) {
      EXPECT_EQ(DifferenceFromProtobuf(InSlices(c.bytes, cuts), c.bytes), "")
          << c.name << " cut by " << absl::CHexEscape(cuts);
    }
  }
}

TEST_F(CodecTest, AgreesWithProtobufOnEveryPrefix) {
  for (const Case& c : Cases()) {
    for (std::size_t size = 0; size < std::min<std::size_t>(c.bytes.size(), 200); ++size) {
      const std::string prefix = c.bytes.substr(0, size);
      EXPECT_EQ(DifferenceFromProtobuf(InSlices(prefix, "\3"), prefix), "") << c.name << " up to " << size;
    }
  }
}

// Messages of the fields that matter, in any order, often malformed.
class RandomMessage {
 public:
  explicit RandomMessage(unsigned seed) : random_(seed) {}

  std::string Make() {
    std::string bytes = Fields(0);
    if (Below(3) == 0 && !bytes.empty()) bytes[Below(bytes.size())] = static_cast<char>(Below(256));
    if (Below(4) == 0) bytes.resize(Below(bytes.size() + 1));
    return bytes;
  }
  std::string Cuts() {
    std::string cuts;
    for (std::size_t count = Below(4); count > 0; --count) cuts.push_back(static_cast<char>(Below(9)));
    return cuts;
  }

 private:
  std::size_t Below(std::size_t bound) { return random_() % bound; }

  std::string Number() {
    std::string bytes = Varint(Below(2) == 0 ? Below(300) : std::uint64_t{random_()} << Below(33));
    while (Below(3) == 0) {  // overlong
      bytes.back() = static_cast<char>(bytes.back() | '\x80');
      bytes.push_back(Below(4) == 0 ? '\x7f' : '\0');
    }
    return bytes;
  }

  std::string Fields(int depth) {
    std::string bytes;
    for (std::size_t count = Below(6); count > 0; --count) bytes += Field(depth);
    return bytes;
  }

  std::string Field(int depth) {
    static constexpr std::uint32_t kNumbers[] = {1, 2, 5, 11, 14, 15, 16, 17, 22, 50, 99, 100, 101, 102, 103, 1 << 28};
    const std::uint32_t number = kNumbers[Below(std::size(kNumbers))];
    switch (Below(7)) {
      case 0:
        return TagOf(number, 0) + Number();
      case 1:
        return TagOf(number, 1) + std::string(8, 'x');
      case 2:
        return TagOf(number, 5) + std::string(4, 'y');
      case 3:
        return depth < 3 ? TagOf(number, 3) + Fields(depth + 1) + TagOf(number, 4) : "";
      case 4:
        return BytesField(number, Fields(depth + 1));
      default:
        return BytesField(number, std::string(Below(40), static_cast<char>('a' + Below(26))));
    }
  }

  std::mt19937 random_;
};

TEST_F(CodecTest, AgreesWithProtobufOnRandomMessages) {
  RandomMessage random(20240501);
  int accepted = 0;
  for (int i = 0; i < 50000; ++i) {
    const std::string bytes = random.Make();
    const std::string cuts = random.Cuts();
    accepted += v1::ComputeAttentionRequest().ParseFromString(bytes) ? 1 : 0;
    ASSERT_EQ(DifferenceFromProtobuf(InSlices(bytes, cuts), bytes), "") << absl::CHexEscape(bytes);
  }
  EXPECT_GT(accepted, 5000);
  EXPECT_LT(accepted, 45000);
}

TEST_F(CodecTest, TensorsAreViewsOfTheSlices) {
  v1::ComputeAttentionRequest request;
  request.set_q(std::string(100000, 'q'));
  request.set_k(std::string(50000, 'k'));
  const grpc::Slice slice(request.SerializeAsString());
  const grpc::ByteBuffer message(&slice, 1);
  const absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded =
      Decode<v1::ComputeAttentionRequest>(message, kMaxHeaderBytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const auto inside = [&](const TensorBytes& tensor) {
    const auto* const data = reinterpret_cast<const std::uint8_t*>(tensor.segments[0].data);
    return tensor.segments.size() == 1 && data >= slice.begin() && data + tensor.size <= slice.end();
  };
  EXPECT_TRUE(inside(decoded->tensors().q));
  EXPECT_TRUE(inside(decoded->tensors().k));
}

TEST_F(CodecTest, ViewsSurviveTheMessageAndTheMove) {
  v1::ComputeAttentionRequest request;
  request.set_q("0123456789");
  grpc::ByteBuffer message = InSlices(request.SerializeAsString(), "\4");  // slices so short lie within grpc::Slice
  absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded =
      Decode<v1::ComputeAttentionRequest>(message, kMaxHeaderBytes);
  ASSERT_TRUE(decoded.ok());
  message.Clear();
  const Decoded<v1::ComputeAttentionRequest> moved = *std::move(decoded);
  std::string q;
  for (const kernel::Segment& segment : moved.tensors().q.segments) {
    q.append(reinterpret_cast<const char*>(segment.data), segment.size);
  }
  EXPECT_EQ(q, "0123456789");
}

TEST_F(CodecTest, SmallFieldsAreBounded) {
  std::string lengths(kMaxHeaderBytes, '\1');
  const std::string too_large = BytesField(17, lengths);
  const auto refused = Decode<v1::ComputeAttentionRequest>(InSlices(too_large, ""), kMaxHeaderBytes);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  EXPECT_NE(refused.status().message().find(absl::StrCat(kMaxHeaderBytes)), absl::string_view::npos);

  lengths.resize(kMaxHeaderBytes - 10);
  const std::string fits = BytesField(17, lengths);
  EXPECT_EQ(DifferenceFromProtobuf(InSlices(fits, "\xff"), fits), "");
}

// Up to the limit and one byte beyond it, wherever the small fields stand among the tensors.
TEST_F(CodecTest, SmallFieldsUpToTheLimit) {
  constexpr std::int64_t kLimit = 100;
  const std::string tensors = BytesField(100, std::string(5000, 'q')) + BytesField(102, "v");
  for (int more = -2; more <= 2; ++more) {
    const std::string model = BytesField(1, std::string(static_cast<std::size_t>(kLimit - 2 + more), 'm'));
    ASSERT_EQ(static_cast<std::int64_t>(model.size()), kLimit + more);
    const std::string table = BytesField(3, "t");
    const std::string rest = BytesField(1, std::string(static_cast<std::size_t>(kLimit - 5 + more), 'm'));
    for (const std::string& bytes :
         {model + tensors, tensors + model, table + tensors + rest, rest + tensors + table}) {
      for (const char* cuts : {"", "\7"}) {
        const absl::Status status = Decode<v1::ComputeAttentionRequest>(InSlices(bytes, cuts), kLimit).status();
        EXPECT_EQ(status.code(), more > 0 ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk) << status;
      }
    }
  }
}

// Whatever becomes of it, and also while it is moved.
TEST_F(CodecTest, ReceivedBytesCountAsLongAsTheMessageIsHeld) {
  v1::ComputeAttentionRequest request;
  request.set_q(std::string(5000, 'q'));
  const std::string good = request.SerializeAsString();
  const auto size = static_cast<std::int64_t>(good.size());
  const std::int64_t before = ReceivedBytes::Total();
  {
    absl::StatusOr<Decoded<v1::ComputeAttentionRequest>> decoded =
        Decode<v1::ComputeAttentionRequest>(InSlices(good, "\xff"), kMaxHeaderBytes);
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(ReceivedBytes::Total() - before, size);
    Decoded<v1::ComputeAttentionRequest> moved = *std::move(decoded);
    EXPECT_EQ(ReceivedBytes::Total() - before, size);
    moved = {};
    EXPECT_EQ(ReceivedBytes::Total() - before, 0);
  }
  EXPECT_EQ(ReceivedBytes::Total() - before, 0);
  for (const std::string& bad :
       {good + "\x07", good + BytesField(1, "\xff"), BytesField(17, std::string(2000, '\1'))}) {
    EXPECT_FALSE(Decode<v1::ComputeAttentionRequest>(InSlices(bad, "\xff"), 1000).ok());
    EXPECT_EQ(ReceivedBytes::Total() - before, 0);
  }
}

TEST_F(CodecTest, NoMessageAtAllIsInvalid) {
  EXPECT_EQ(Decode<v1::ComputeAttentionRequest>(grpc::ByteBuffer(), kMaxHeaderBytes).status().code(),
            absl::StatusCode::kInvalidArgument);
}

Buffer BufferOf(const std::string& bytes) {
  absl::StatusOr<Buffer> buffer = Buffer::Create(bytes.size());
  EXPECT_TRUE(buffer.ok());
  if (!bytes.empty()) std::memcpy(buffer->data(), bytes.data(), bytes.size());
  return *std::move(buffer);
}

TEST_F(CodecTest, ReplyIsWhatProtobufWouldWrite) {
  for (const std::size_t size : {1U, 127U, 128U, 5000U, 1U << 21}) {
    for (const std::size_t log_sum_exp_size : {0U, 4U, 20000U}) {
      v1::ComputeAttentionResponse header;
      header.set_version(7);
      header.set_content_hash("abc");
      header.mutable_queue_time()->set_nanos(5);
      v1::ComputeAttentionResponse whole = header;
      whole.set_output(std::string(size, 'o'));
      whole.set_log_sum_exp(std::string(log_sum_exp_size, 'l'));
      const grpc::ByteBuffer reply = EncodeReply(header, BufferOf(whole.log_sum_exp()), BufferOf(whole.output()));
      grpc::Slice flat;
      ASSERT_TRUE(reply.DumpToSingleSlice(&flat).ok());
      EXPECT_EQ(std::string(flat.begin(), flat.end()), whole.SerializeAsString());
    }
  }
}

}  // namespace
}  // namespace attnd::server
