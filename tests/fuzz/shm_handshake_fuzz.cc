// The handshake by which callers share memory, with descriptors of every kind. The input is a row of messages: a byte
// for each of up to three descriptors (its kind), a byte of what to send (a release of the last region, or the fixed
// message as it follows), and two bytes of its size with the bytes.

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attnd/shm/protocol.h"
#include "check.h"
#include "input.h"
#include "server/shm/connection.h"
#include "wait.h"

namespace attnd::server {
namespace {

using fuzz::Check;

constexpr std::int64_t kRegion = 8192;
constexpr std::int64_t kMaxTotal = 5 * kRegion;

int Memory(off_t size, unsigned flags, int seals) {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC | flags);
  Check(fd >= 0 && ftruncate(fd, size) == 0 && (seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0), "a memfd");
  return fd;
}

// One descriptor of each kind; the first is one that can be shared.
struct Kinds {
  std::vector<int> fds;
  Kinds() {
    fds.push_back(Memory(kRegion, MFD_ALLOW_SEALING, F_SEAL_SHRINK));
    fds.push_back(Memory(kRegion, MFD_ALLOW_SEALING, 0));
    fds.push_back(Memory(kRegion, 0, 0));
    fds.push_back(Memory(kRegion, MFD_ALLOW_SEALING, F_SEAL_SHRINK | F_SEAL_WRITE));
    fds.push_back(Memory(0, MFD_ALLOW_SEALING, F_SEAL_SHRINK));
    fds.push_back(Memory(off_t{1} << 40, MFD_ALLOW_SEALING, F_SEAL_SHRINK));
    fds.push_back(open(absl::StrCat("/proc/self/fd/", fds.front()).c_str(), O_RDONLY | O_CLOEXEC));
    fds.push_back(open("/dev/null", O_RDWR | O_CLOEXEC));
    fds.push_back(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    fds.push_back(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    fds.push_back(open("/", O_PATH | O_CLOEXEC));
    fds.push_back(eventfd(0, EFD_CLOEXEC));
    int pair[2];
    Check(pipe2(pair, O_CLOEXEC) == 0, "a pipe");
    fds.insert(fds.end(), {pair[0], pair[1]});
    Check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
    fds.insert(fds.end(), {pair[0], pair[1]});
    for (const int fd : fds) Check(fd >= 0, "a descriptor of each kind");
  }
};

class Replies final : public DatagramSink {
 public:
  void Pause() override {}
  void Resume() override {}
  void Send(std::string datagram, std::shared_ptr<const void>) override {
    Check(datagram.size() == sizeof(shm::Reply), "a reply is a fixed message");
    ++count;
    std::memcpy(&last, datagram.data(), sizeof(last));
    Check(last.magic == shm::kMagic && last.version == shm::kVersion, "a reply is of our protocol");
    Check(std::memchr(last.message, 0, sizeof(last.message)) != nullptr, "a reply's words end");
    Check((last.code == 0) == (last.message[0] == '\0'), "an error has words");
    Check(last.code >= 0 && last.code <= 16, "a gRPC status code");
  }
  int count = 0;
  shm::Reply last{};
};

// Every message here is a fixed one, or refused before it gets here.
class NoCalls final : public LocalConnection {
 public:
  absl::Status Take(absl::string_view) override { return absl::InvalidArgumentError("no calls"); }
  void Close() override {}
};

int LowestFree(const Kinds& kinds) {
  const shm::UniqueFd copy(fcntl(kinds.fds.front(), F_DUPFD_CLOEXEC, 0));
  return copy.get();
}

struct World {
  Kinds kinds;
  int lowest = LowestFree(kinds);  // before there are threads, whose start opens files for a moment
  SharedMemory memory{SharedMemoryLimits{kMaxTotal, 4 * kRegion, 3, /*peer_shares=*/false}};
  Closer closer, unmapper;
  SharedMemory::Owner owner = 0;
};

void Run(World& world, fuzz::Input input) {
  const auto replies = std::make_shared<Replies>();
  {
    Connection connection(++world.owner, "user", &world.memory, world.closer, world.unmapper, replies,
                          std::make_shared<NoCalls>());
    shm::Handle given{};
    while (!input.empty()) {
      std::vector<shm::UniqueFd> descriptors;
      std::vector<std::size_t> kinds;
      for (int i = 0; i < 3; ++i) {
        const std::size_t kind = input.Take<std::uint8_t>();
        if (kind >= world.kinds.fds.size()) continue;
        kinds.push_back(kind);
        descriptors.emplace_back(fcntl(world.kinds.fds[kind], F_DUPFD_CLOEXEC, 0));
      }
      const auto what = input.Take<std::uint8_t>();
      std::string datagram(input.Block());
      shm::Request request{};
      if ((what & 1) != 0) {
        request = {shm::kMagic, shm::kVersion, shm::Operation::kRelease, 0, given};
        datagram.assign(reinterpret_cast<const char*>(&request), sizeof(request));
      } else if ((what & 2) != 0) {
        datagram.insert(0, "attndshm\1\0\0", 12);
        datagram.resize(sizeof(request), '\0');
      }
      const int replied = replies->count;
      const std::int64_t mapped = world.memory.mapped_bytes();
      const absl::Status taken = connection.Take(datagram, std::move(descriptors));
      Check(replies->count == replied + (taken.ok() ? 1 : 0), "one reply to each message, none to the last one");
      Check(world.memory.mapped_bytes() <= kMaxTotal, "what is mapped is within its limit");
      if (!taken.ok()) break;
      Check(datagram.size() == sizeof(request), "only messages of one size are answered");
      std::memcpy(&request, datagram.data(), sizeof(request));
      if (replies->last.code != 0) continue;
      if (request.operation == shm::Operation::kRelease) continue;
      Check(request.operation == shm::Operation::kRegister, "an operation that there is");
      Check(kinds.size() == 1 && (kinds[0] == 0 || kinds[0] == 5), "only a sealed, writable memfd is taken");
      Check(request.size >= 1 && (kinds[0] == 5 || request.size <= kRegion), "a region lies in its memfd");
      Check(world.memory.mapped_bytes() <= mapped + static_cast<std::int64_t>(request.size),
            "what is mapped was asked for");
      given = replies->last.handle;
    }
  }
  while (world.memory.mapped_bytes() > 0 || world.closer.waiting() > 0 || world.unmapper.waiting() > 0) {
    std::this_thread::yield();  // a hang is found by the fuzzer's time limit
  }
  Check(test::Becomes([&] { return LowestFree(world.kinds) == world.lowest; }), "every descriptor is closed");
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static attnd::server::World& world = *new attnd::server::World;
  attnd::server::Run(world, attnd::fuzz::Input(data, size));
  return 0;
}
