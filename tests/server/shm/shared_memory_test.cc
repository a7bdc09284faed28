// Regions as well-behaved, careless and hostile callers register them, and what the server lets them name.
#include "server/shm/shared_memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "attnd/shm/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using testing::HasSubstr;

constexpr std::size_t kSize = 1 << 16;

shm::UniqueFd Memory(std::size_t size, int seals = F_SEAL_SHRINK, unsigned flags = MFD_ALLOW_SEALING) {
  shm::UniqueFd fd(memfd_create("test", flags | MFD_CLOEXEC));
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return {};
  if (seals != 0 && fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return {};
  return fd;
}

v1::SharedTensor Place(const shm::Handle& handle, std::uint64_t offset) {
  v1::SharedTensor tensor;
  tensor.set_region(handle.data(), handle.size());
  tensor.set_offset(offset);
  return tensor;
}

class SharedMemoryTest : public testing::Test {
 protected:
  SharedMemory memory_{{.max_total_bytes = 4 * kSize,
                        .max_connection_bytes = 3 * kSize,
                        .max_connection_regions = 3,
                        .peer_shares = false}};
};

TEST_F(SharedMemoryTest, BothSidesSeeTheSameBytes) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok()) << handle.status();
  auto* const mine = static_cast<char*>(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  std::memcpy(mine + 100, "query", 5);
  const auto bytes = memory_.Resolve("q_shared", Place(*handle, 100), 5);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes->data), bytes->size), "query");
  std::memcpy(bytes->data, "QUERY", 5);
  EXPECT_EQ(std::string(mine + 100, 5), "QUERY");
  munmap(mine, kSize);
}

TEST_F(SharedMemoryTest, HandlesAreRandomAndDistinct) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto first = memory_.Register(1, "user", fd.get(), kSize);
  const auto second = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
  EXPECT_NE(*first, shm::Handle{});
}

struct BadFile {
  const char* name;
  shm::UniqueFd (*make)();
  std::uint64_t size;
  const char* message;
};

class BadFileTest : public SharedMemoryTest, public testing::WithParamInterface<BadFile> {};

TEST_P(BadFileTest, IsRefused) {
  const shm::UniqueFd fd = GetParam().make();
  const auto handle = memory_.Register(1, "user", fd.get(), GetParam().size);
  EXPECT_EQ(handle.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(handle.status().message()), HasSubstr(GetParam().message));
  EXPECT_EQ(memory_.mapped_bytes(), 0);
}

shm::UniqueFd ReadOnly() {
  const shm::UniqueFd fd = Memory(kSize);
  return shm::UniqueFd(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDONLY | O_CLOEXEC));
}

shm::UniqueFd TemporaryFile() {
  std::string path = testing::TempDir() + "/attnd-shm-XXXXXX";
  shm::UniqueFd fd(mkstemp(path.data()));
  unlink(path.c_str());
  if (ftruncate(fd.get(), kSize) != 0) return {};
  return fd;
}

shm::UniqueFd Pipe() {
  int ends[2];
  if (pipe(ends) != 0) return {};
  close(ends[1]);
  return shm::UniqueFd(ends[0]);
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadFileTest,
    testing::Values(BadFile{"unsealed", [] { return Memory(kSize, 0); }, kSize, "F_SEAL_SHRINK"},
                    BadFile{"sealed_otherwise", [] { return Memory(kSize, F_SEAL_GROW); }, kSize, "F_SEAL_SHRINK"},
                    BadFile{"unsealable", [] { return Memory(kSize, 0, 0); }, kSize, "F_SEAL_SHRINK"},
                    BadFile{"write_sealed", [] { return Memory(kSize, F_SEAL_SHRINK | F_SEAL_WRITE); }, kSize,
                            "writing"},
                    BadFile{"read_only", ReadOnly, kSize, "writing"},  //
                    BadFile{"file", TemporaryFile, kSize, "memfd"},    //
                    BadFile{"pipe", Pipe, kSize, "memfd"},
                    BadFile{"none", [] { return shm::UniqueFd(); }, kSize, "memfd"},
                    BadFile{"larger_than_file", [] { return Memory(kSize); }, kSize + 1, "the memfd's size"},
                    BadFile{"huge", [] { return Memory(kSize); }, ~std::uint64_t{0}, "the memfd's size"},
                    BadFile{"zero", [] { return Memory(kSize); }, 0, "the memfd's size"}),
    [](const auto& info) { return info.param.name; });

TEST_F(SharedMemoryTest, RefusesHugePages) {
  // An empty file needs no huge page, so this runs where the system has none to give.
  const shm::UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!fd.valid()) GTEST_SKIP() << "this kernel has no huge pages";
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  EXPECT_THAT(std::string(handle.status().message()), HasSubstr("one of huge pages"));
}

// The seal is what keeps a truncation from turning our reads into SIGBUS. The control: without the seal it would.
TEST_F(SharedMemoryTest, SealedMemoryCannotShrinkUnderUs) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok());
  EXPECT_EQ(ftruncate(fd.get(), 0), -1);
  EXPECT_EQ(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kSize), 0);
  const auto bytes = memory_.Resolve("q_shared", Place(*handle, 0), kSize);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(std::to_integer<int>(bytes->data[kSize - 1]), 0);  // a hole reads as zeros
  bytes->data[0] = std::byte{1};
}

TEST(SharedMemoryDeathTest, UnsealedMemoryWouldKillTheServer) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const shm::UniqueFd fd = Memory(kSize, 0);
  auto* const mapped = static_cast<volatile char*>(mmap(nullptr, kSize, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_EQ(ftruncate(fd.get(), 0), 0);
  EXPECT_DEATH(static_cast<void>(mapped[0]), "");
}

TEST_F(SharedMemoryTest, ResolvesOnlyWhatLiesInside) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok());
  EXPECT_TRUE(memory_.Resolve("q_shared", Place(*handle, 0), kSize).ok());
  EXPECT_TRUE(memory_.Resolve("q_shared", Place(*handle, kSize), 0).ok());
  EXPECT_TRUE(memory_.Resolve("q_shared", Place(*handle, kSize - 1), 1).ok());
  constexpr std::uint64_t kMost = ~std::uint64_t{0};
  const std::pair<std::uint64_t, std::size_t> outside[] = {{0, kSize + 1}, {1, kSize},     {kSize, 1}, {kSize + 1, 0},
                                                           {kMost, 1},     {kMost, kMost}, {1, kMost}};
  for (const auto& [offset, size] : outside) {
    const auto bytes = memory_.Resolve("q_shared", Place(*handle, offset), size);
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << offset << " " << size;
    EXPECT_THAT(std::string(bytes.status().message()), HasSubstr("q_shared.offset"));
  }
}

TEST_F(SharedMemoryTest, UnknownHandlesNameNothing) {
  v1::SharedTensor tensor;
  EXPECT_EQ(memory_.Resolve("v_shared", tensor, 1).status().code(), absl::StatusCode::kInvalidArgument);
  tensor.set_region(std::string(17, 'x'));
  EXPECT_EQ(memory_.Resolve("v_shared", tensor, 1).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status unknown = memory_.Resolve("v_shared", Place(shm::Handle{1, 2, 3}, 0), 1).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("v_shared.region"));
}

TEST_F(SharedMemoryTest, ReleaseIsTheOwnersAlone) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok());
  EXPECT_EQ(memory_.Release(2, *handle).status().code(), absl::StatusCode::kNotFound);
  memory_.Drop(2);
  EXPECT_TRUE(memory_.Resolve("q_shared", Place(*handle, 0), 1).ok());
  EXPECT_TRUE(memory_.Release(1, *handle).ok());
  EXPECT_FALSE(memory_.Resolve("q_shared", Place(*handle, 0), 1).ok());
  EXPECT_EQ(memory_.Release(1, *handle).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SharedMemoryTest, ACallInFlightKeepsTheMapping) {
  const shm::UniqueFd fd = Memory(kSize);
  const auto handle = memory_.Register(1, "user", fd.get(), kSize);
  ASSERT_TRUE(handle.ok());
  {
    const auto bytes = memory_.Resolve("q_shared", Place(*handle, 0), kSize);
    ASSERT_TRUE(bytes.ok());
    memory_.Drop(1);
    bytes->data[kSize - 1] = std::byte{7};
    EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>(kSize));
  }
  EXPECT_EQ(memory_.mapped_bytes(), 0);
}

// Mappings of memfds in this process.
int Mappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("/memfd:test") != std::string::npos ? 1 : 0;
  return count;
}

TEST_F(SharedMemoryTest, WhatIsNoLongerUsedIsUnmapped) {
  const int before = Mappings();
  const shm::UniqueFd fd = Memory(kSize);
  const auto released = memory_.Register(1, "user", fd.get(), kSize),
             dropped = memory_.Register(1, "user", fd.get(), 1);
  const auto other = memory_.Register(2, "user", fd.get(), kSize);
  ASSERT_TRUE(released.ok() && dropped.ok() && other.ok());
  EXPECT_EQ(Mappings(), before + 3);
  EXPECT_TRUE(memory_.Release(1, *released).ok());
  EXPECT_EQ(Mappings(), before + 2);
  memory_.Drop(1);
  EXPECT_EQ(Mappings(), before + 1);
  EXPECT_TRUE(memory_.Resolve("q_shared", Place(*other, 0), kSize).ok()) << "another's";
  EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>(kSize));
}

// Each of several in one file and one owner: its own bytes, held by whoever has resolved them.
TEST_F(SharedMemoryTest, EachRegionIsHeldByItself) {
  const shm::UniqueFd fds[] = {Memory(kSize), Memory(kSize), Memory(kSize)};
  std::vector<shm::Handle> handles;
  for (const shm::UniqueFd& fd : fds) handles.push_back(*memory_.Register(1, "user", fd.get(), kSize));
  for (std::size_t used = 0; used < handles.size(); ++used) {
    auto bytes = memory_.Resolve("q_shared", Place(handles[used], 8), 16);
    ASSERT_TRUE(bytes.ok());
    ASSERT_NE(bytes->region, nullptr);
    EXPECT_EQ(bytes->size, 16U);
    ASSERT_TRUE(memory_.Release(1, handles[used]).ok());
    EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>((handles.size() - used) * kSize));
    bytes->data[0] = std::byte{1};
    bytes->region.reset();
    EXPECT_EQ(memory_.mapped_bytes(), static_cast<std::int64_t>((handles.size() - used - 1) * kSize));
  }
}

TEST_F(SharedMemoryTest, LimitsHold) {
  const shm::UniqueFd fd = Memory(4 * kSize);
  const auto code = [&](SharedMemory::Owner owner, std::size_t size) {
    return memory_.Register(owner, "user", fd.get(), size).status().code();
  };
  EXPECT_EQ(code(1, 3 * kSize + 1), absl::StatusCode::kResourceExhausted);  // of one connection
  EXPECT_EQ(code(1, 2 * kSize), absl::StatusCode::kOk);
  EXPECT_EQ(code(1, kSize + 1), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(2, 3 * kSize), absl::StatusCode::kResourceExhausted);  // of all
  EXPECT_EQ(code(2, 2 * kSize), absl::StatusCode::kOk);
  EXPECT_EQ(code(3, 1), absl::StatusCode::kResourceExhausted);
  memory_.Drop(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(code(1, 1), absl::StatusCode::kOk);
  EXPECT_EQ(code(1, 1), absl::StatusCode::kResourceExhausted);  // regions of one connection
  EXPECT_EQ(code(4, 1), absl::StatusCode::kOk) << "another connection's are its own";
}

// Whatever is refused takes nothing of any limit: it can be tried for ever.
TEST_F(SharedMemoryTest, WhatIsRefusedTakesNothing) {
  const shm::UniqueFd fd = Memory(4 * kSize), unwritable = Memory(kSize, F_SEAL_SHRINK | F_SEAL_WRITE);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(memory_.Register(1, "user", unwritable.get(), kSize).ok()) << "cannot be mapped";
    EXPECT_FALSE(memory_.Register(1, "user", fd.get(), 4 * kSize).ok()) << "beyond a connection's bytes";
    EXPECT_FALSE(memory_.Register(1, "user", fd.get(), 4 * kSize + 1).ok()) << "beyond the file";
  }
  EXPECT_EQ(memory_.mapped_bytes(), 0);
  EXPECT_TRUE(memory_.Register(1, "user", fd.get(), 3 * kSize).ok());
  EXPECT_TRUE(memory_.Register(2, "user", fd.get(), kSize).ok());
}

// Two connections of a user used to take the bytes of all.
TEST(SharedMemorySharesTest, AUserLeavesRoomForOthersWithAnyNumberOfConnections) {
  for (const bool shares : {true, false}) {
    SharedMemory memory({.max_total_bytes = 8 * kSize,
                         .max_connection_bytes = 4 * kSize,
                         .max_connection_regions = 256,
                         .peer_shares = shares});
    const shm::UniqueFd fd = Memory(kSize);
    int taken = 0;
    for (SharedMemory::Owner owner = 1; owner <= 20; ++owner) {
      while (memory.Register(owner, "uid:1", fd.get(), kSize).ok()) ++taken;
    }
    EXPECT_EQ(taken, shares ? 4 : 8);
    const absl::Status other = memory.Register(21, "uid:2", fd.get(), kSize).status();
    EXPECT_EQ(other.ok(), shares) << other;
  }
}

TEST(SharedMemorySharesTest, RefusalsSayWhichBoundWasMet) {
  SharedMemory memory({.max_total_bytes = 8 * kSize, .max_connection_bytes = 8 * kSize});
  const shm::UniqueFd fd = Memory(8 * kSize);
  EXPECT_THAT(std::string(memory.Register(1, "uid:1", fd.get(), 5 * kSize).status().message()),
              HasSubstr("the half that one user can have"));
  ASSERT_TRUE(memory.Register(1, "uid:1", fd.get(), 3 * kSize).ok());
  EXPECT_THAT(std::string(memory.Register(1, "uid:1", fd.get(), 2 * kSize).status().message()),
              HasSubstr("bytes of one user while"));
  EXPECT_EQ(memory.GetUsage().refused_by_share, 1);
  EXPECT_EQ(memory.GetUsage().largest_peer, static_cast<std::int64_t>(3 * kSize));
}

}  // namespace
}  // namespace attnd::server
