// The scanner against protobuf's own reader, byte for byte, however the bytes are cut into segments.

#include "server/wire/field_scanner.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "google/protobuf/empty.pb.h"
#include "gtest/gtest.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

// Bytes in segments of memory of their own, so that a sanitizer sees a read beyond one.
class Segments {
 public:
  // `cuts` are the sizes of the segments, the last one's aside.
  Segments(const std::string& bytes, const std::vector<std::size_t>& cuts) {
    auto at = bytes.begin();
    for (const std::size_t size : cuts) {
      const auto end = at + std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(size), bytes.end() - at);
      pieces_.emplace_back(at, end);
      at = end;
    }
    pieces_.emplace_back(at, bytes.end());
    for (const std::vector<char>& piece : pieces_) {
      segments_.push_back({reinterpret_cast<const std::byte*>(piece.data()), piece.size()});
    }
  }

  Segments(Segments&&) = default;

  SegmentCursor cursor() const { return SegmentCursor(segments_); }

 private:
  std::vector<std::vector<char>> pieces_;
  std::vector<kernel::Segment> segments_;
};

// One segment, two at every place, single bytes, and empty ones between.
std::vector<Segments> EveryCut(const std::string& bytes) {
  std::vector<Segments> all;
  all.emplace_back(bytes, std::vector<std::size_t>{});
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) all.emplace_back(bytes, std::vector<std::size_t>{cut});
  all.emplace_back(bytes, std::vector<std::size_t>(bytes.size(), 1));
  std::vector<std::size_t> with_empty = {0, 0};
  for (std::size_t i = 0; i < bytes.size(); ++i) with_empty.insert(with_empty.end(), {1, 0});
  all.emplace_back(bytes, with_empty);
  return all;
}

std::string Take(SegmentCursor& cursor, std::size_t count, bool* enough) {
  std::string taken;
  *enough = cursor.Consume(count, [&taken](kernel::Segment piece) {
    EXPECT_GT(piece.size, 0U);
    taken.append(reinterpret_cast<const char*>(piece.data), piece.size);
  });
  return taken;
}

TEST(SegmentCursorTest, ReadsEveryByteOnceWhateverTheCuts) {
  const std::string bytes = "0123456";
  for (const Segments& segments : EveryCut(bytes)) {
    SegmentCursor cursor = segments.cursor();
    std::string read;
    std::uint8_t byte = 0;
    while (!cursor.AtEnd()) {
      EXPECT_EQ(cursor.position(), read.size());
      ASSERT_TRUE(cursor.Next(byte));
      read.push_back(static_cast<char>(byte));
    }
    EXPECT_EQ(read, bytes);
    EXPECT_FALSE(cursor.Next(byte));
    EXPECT_EQ(cursor.position(), bytes.size());
  }
}

TEST(SegmentCursorTest, ConsumesInOrderAndSaysWhenThereIsLess) {
  const std::string bytes = "0123456";
  for (const Segments& segments : EveryCut(bytes)) {
    for (std::size_t first = 0; first <= bytes.size() + 1; ++first) {
      SegmentCursor cursor = segments.cursor();
      bool enough = false;
      EXPECT_EQ(Take(cursor, first, &enough), bytes.substr(0, first));
      EXPECT_EQ(enough, first <= bytes.size());
      const std::size_t at = std::min(first, bytes.size());
      EXPECT_EQ(cursor.position(), at);
      EXPECT_EQ(cursor.AtEnd(), at == bytes.size());
      EXPECT_EQ(Take(cursor, 100, &enough), bytes.substr(at)) << "all that is left is consumed";
      EXPECT_FALSE(enough);
      EXPECT_TRUE(cursor.AtEnd());
      EXPECT_TRUE(cursor.Skip(0));
      EXPECT_FALSE(cursor.Skip(1));
    }
  }
}

TEST(SegmentCursorTest, NothingIsAtItsEndAtOnce) {
  EXPECT_TRUE(SegmentCursor({}).AtEnd());
  EXPECT_TRUE(Segments("", {0, 0, 0}).cursor().AtEnd());
  EXPECT_TRUE(SegmentCursor({}).Skip(0));
  EXPECT_FALSE(SegmentCursor({}).Skip(1));
}

TEST(SegmentCursorTest, CopiesReadApart) {
  const Segments segments("0123", {1, 1});
  SegmentCursor ahead = segments.cursor();
  SegmentCursor behind = ahead;
  EXPECT_TRUE(ahead.Skip(3));
  EXPECT_EQ(behind.position(), 0U);
  std::uint8_t byte = 0;
  EXPECT_TRUE(behind.Next(byte));
  EXPECT_EQ(byte, '0');
}

struct TagCase {
  const char* hex;
  std::uint32_t number = 0;  // 0: refused
  WireType type = WireType::kVarint;
};

TEST(ReadTagTest, TakesWhatProtobufTakes) {
  const TagCase kCases[] = {
      {"08", 1, WireType::kVarint},
      {"09", 1, WireType::kFixed64},
      {"0a", 1, WireType::kBytes},
      {"0b", 1, WireType::kStartGroup},
      {"0c", 1, WireType::kEndGroup},
      {"0d", 1, WireType::kFixed32},
      {"0e"},
      {"0f"},
      {"a206", 100, WireType::kBytes},
      {"8800", 1, WireType::kVarint},        // longer than it must be
      {"8880808000", 1, WireType::kVarint},  // five bytes
      {"f8ffffff0f", 0x1fffffff, WireType::kVarint},
      {"88808080f000"},                               // six
      {"888080807f", 0x1e000001, WireType::kVarint},  // bits beyond the 32nd are dropped
      {"8880808070", 1, WireType::kVarint},
      {"00"},  // field number 0
      {"02"},
      {"8080808070"},  // ...once the surplus bits are dropped
      {""},
      {"88"},
      {"88808080"},
  };
  for (const TagCase& c : kCases) {
    const std::string bytes = absl::HexStringToBytes(c.hex);
    for (const Segments& segments : EveryCut(bytes)) {
      SegmentCursor cursor = segments.cursor();
      const std::optional<Tag> tag = ReadTag(cursor);
      EXPECT_EQ(tag.has_value(), c.number != 0) << c.hex;
      if (!tag.has_value() || c.number == 0) continue;
      EXPECT_EQ(tag->number, c.number) << c.hex;
      EXPECT_EQ(tag->type, c.type) << c.hex;
      EXPECT_TRUE(cursor.AtEnd()) << c.hex;
    }
  }
}

TEST(ReadLengthTest, TakesFiveBytesBelowTwoGibibytesLessSixteen) {
  const struct {
    const char* hex;
    std::optional<std::size_t> length;
  } kCases[] = {
      {"00", 0},
      {"7f", 127},
      {"8001", 128},
      {"8000", 0},
      {"8080808000", 0},
      {"efffffff07", 0x7fffffef},  // 2^31 - 1 - 16
      {"f0ffffff07", std::nullopt},
      {"ffffffff07", std::nullopt},
      {"8080808008", std::nullopt},  // 2^31
      {"ffffffff0f", std::nullopt},
      {"8080808010", std::nullopt},  // 2^32: not 0
      {"808080808000", std::nullopt},
      {"", std::nullopt},
      {"80", std::nullopt},
  };
  for (const auto& c : kCases) {
    for (const Segments& segments : EveryCut(absl::HexStringToBytes(c.hex))) {
      SegmentCursor cursor = segments.cursor();
      EXPECT_EQ(ReadLength(cursor), c.length) << c.hex;
    }
  }
}

std::string Groups(int depth) {
  return std::string(static_cast<std::size_t>(depth), '\x0b') + std::string(static_cast<std::size_t>(depth), '\x0c');
}

// What protobuf says of these bytes, all whose fields are unknown to it.
bool ProtobufTakes(const std::string& bytes) {
  const SilentProtobuf silent;
  return google::protobuf::Empty().ParseFromString(bytes);
}

// Whether the scanner can skip all fields, and if so, that it has read every byte.
bool ScannerTakes(const Segments& segments, std::size_t size) {
  SegmentCursor cursor = segments.cursor();
  while (!cursor.AtEnd()) {
    const std::optional<Tag> tag = ReadTag(cursor);
    if (!tag.has_value() || !SkipField(cursor, *tag)) return false;
  }
  EXPECT_EQ(cursor.position(), size);
  return true;
}

TEST(SkipFieldTest, TakesWhatProtobufTakes) {
  const struct {
    const char* hex;
    bool taken;
  } kCases[] = {
      {"0800", true},
      {"08ffffffffffffffffff01", true},     // ten bytes
      {"08ffffffffffffffffff7f", true},     // bits beyond the 64th are dropped
      {"08ffffffffffffffffffff01", false},  // eleven
      {"08", false},
      {"0880", false},
      {"090000000000000000", true},
      {"0900000000000000", false},
      {"0d00000000", true},
      {"0d000000", false},
      {"0a00", true},
      {"0a0361626308ff01", true},
      {"0a03616263", true},
      {"0a036162", false},
      {"0aefffffff07", false},
      {"0b0c", true},
      {"0b08010a01610d000000000900000000000000000c", true},
      {"0b130b0c140c", true},  // groups within groups
      {"0b", false},
      {"0b0b0c", false},
      {"0b0801", false},
      {"0b0a0561620c", false},
      {"0b0e0c", false},
      {"0c", false},  // ends what nothing began
      {"08000c", false},
      {"0b0c0c", false},
  };
  for (const auto& c : kCases) {
    const std::string bytes = absl::HexStringToBytes(c.hex);
    EXPECT_EQ(ProtobufTakes(bytes), c.taken) << c.hex << ": the case is wrong";
    for (const Segments& segments : EveryCut(bytes)) EXPECT_EQ(ScannerTakes(segments, bytes.size()), c.taken) << c.hex;
  }
}

TEST(SkipFieldTest, LeavesTheNextFieldToBeRead) {
  for (const char* hex : {"088001", "090000000000000000", "0d00000000", "0a026162", "0b08010c"}) {
    const std::string first = absl::HexStringToBytes(hex);
    const std::string bytes = first + absl::HexStringToBytes("1207");
    for (const Segments& segments : EveryCut(bytes)) {
      SegmentCursor cursor = segments.cursor();
      const std::optional<Tag> tag = ReadTag(cursor);
      ASSERT_TRUE(tag.has_value());
      ASSERT_TRUE(SkipField(cursor, *tag));
      EXPECT_EQ(cursor.position(), first.size());
      const std::optional<Tag> next = ReadTag(cursor);
      ASSERT_TRUE(next.has_value());
      EXPECT_EQ(next->number, 2U);
      EXPECT_EQ(ReadLength(cursor), 7U);
    }
  }
}

TEST(SkipFieldTest, GroupsNestAsDeepAsInProtobuf) {
  for (const int depth : {1, 2, 99, 100, 101, 102, 100000}) {
    const std::string bytes = Groups(depth);
    EXPECT_EQ(ScannerTakes(Segments(bytes, {}), bytes.size()), ProtobufTakes(bytes)) << depth;
  }
  EXPECT_TRUE(ProtobufTakes(Groups(100)));
  EXPECT_FALSE(ProtobufTakes(Groups(101)));
}

std::string Varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

// A random message without groups, with a byte changed, added or removed here and there.
std::string RandomBytes(std::mt19937& random) {
  std::string bytes;
  for (int fields = static_cast<int>(random() % 5); fields > 0; --fields) {
    const std::uint32_t types[] = {0, 1, 2, 5};
    const std::uint32_t type = types[random() % 4];
    bytes += Varint((1 + random() % 300) << 3 | type);
    if (type == 0) bytes += Varint((std::uint64_t{random()} << 32 | random()) >> random() % 64);
    if (type == 1) bytes += std::string(8, static_cast<char>(random()));
    if (type == 5) bytes += std::string(4, static_cast<char>(random()));
    if (type == 2) {
      const std::size_t size = random() % 9;
      bytes += Varint(size) + std::string(size, static_cast<char>(random()));
    }
  }
  for (int changes = static_cast<int>(random() % 3); changes > 0 && !bytes.empty(); --changes) {
    const std::size_t at = random() % bytes.size();
    const auto byte = static_cast<char>(random());
    if (random() % 3 == 0) {
      bytes[at] = byte;
    } else if (random() % 2 == 0) {
      bytes.insert(at, 1, byte);
    } else {
      bytes.erase(at, 1);
    }
  }
  return bytes;
}

bool HasGroup(const std::string& bytes) {
  const Segments segments(bytes, {});
  SegmentCursor cursor = segments.cursor();
  while (!cursor.AtEnd()) {
    const std::optional<Tag> tag = ReadTag(cursor);
    if (!tag.has_value()) return false;
    if (tag->type == WireType::kStartGroup) return true;
    if (!SkipField(cursor, *tag)) return false;
  }
  return false;
}

// Whether the tags at a group's two ends have one number is not looked at: protobuf sees it when it parses the group.
TEST(SkipFieldTest, AgreesWithProtobufOnRandomBytes) {
  std::mt19937 random(1);
  int taken = 0;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string bytes = RandomBytes(random);
    const bool expected = ProtobufTakes(bytes);
    const std::vector<std::size_t> cuts(bytes.size(), 1 + random() % 3);
    for (const Segments& segments : {Segments(bytes, {}), Segments(bytes, cuts)}) {
      const bool got = ScannerTakes(segments, bytes.size());
      if (HasGroup(bytes) && !expected) continue;
      ASSERT_EQ(got, expected) << absl::BytesToHexString(bytes);
    }
    ++(expected ? taken : refused);
  }
  EXPECT_GT(taken, 2000);
  EXPECT_GT(refused, 2000);
}

}  // namespace
}  // namespace attnd::server
