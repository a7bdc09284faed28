// One connection at PATH.shm, with its calls and its session: whatever datagrams it takes, it answers each call once,
// each step once at most, and leaves nothing behind. The input is a row of datagrams, each after a byte that says how
// many descriptors come with it (the lowest two bits) and two bytes of its size. Where a datagram has kMarker, the
// handle of the region that was registered last comes in its place.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attention/calls.h"
#include "attnd/shm/protocol.h"
#include "attnd/v1/local.pb.h"
#include "check.h"
#include "kernel/registry.h"
#include "server/attention/local_service.h"
#include "server/session/local_session.h"
#include "server/session/session_table.h"
#include "server/shm/connection.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

using fuzz::Check;

constexpr std::size_t kRegion = 4096;
constexpr absl::string_view kMarker = "-handle-of-16-b-";

int SealedMemory() {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  Check(ftruncate(fd, kRegion) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0, "a memfd");
  return fd;
}

Limits SmallLimits() {
  Limits limits;
  limits.max_dim = 64;
  limits.max_head_dim = 16;
  return limits;
}

// Holds what is sent against what was asked.
class Peer final : public DatagramSink {
 public:
  void Pause() override { Check(!paused_.exchange(true), "one pause at a time"); }
  void Resume() override { Check(paused_.exchange(false), "what is paused goes on"); }
  bool paused() const { return paused_; }

  // Before a datagram is taken: what it may be answered with.
  void Ask(absl::string_view datagram) {
    v1::LocalRequest request;
    const bool parsed = request.ParseFromArray(datagram.data(), static_cast<int>(datagram.size()));
    absl::MutexLock lock(&mutex_);
    ++asked_;
    // Whether the id of a call that is no request can be found is not this test's to know.
    if (!parsed) ++unknown_;
    if (parsed && request.has_call()) ++calls_[request.call().id()];
  }

  std::string WithHandle(absl::string_view datagram) {
    std::string bytes(datagram);
    absl::MutexLock lock(&mutex_);
    for (std::size_t at = 0;
         !handle_.empty() && (at = bytes.find(kMarker.data(), at, kMarker.size())) != std::string::npos;) {
      bytes.replace(at, kMarker.size(), handle_);
    }
    return bytes;
  }

  void Send(std::string datagram, std::shared_ptr<const void>) override {
    Check(datagram.size() <= kMaxDatagramBytes, "an answer is within a datagram");
    absl::MutexLock lock(&mutex_);
    v1::LocalReply reply;
    const bool parsed = reply.ParseFromString(datagram);
    if (!reply.has_session_end()) ++answered_;  // it comes by itself
    Check(answered_ <= asked_, "each datagram has one answer at most");
    if (datagram.size() == sizeof(shm::Reply) && datagram.compare(0, 8, "attndshm") == 0) {
      if (datagram.compare(12, 4, std::string(4, '\0')) == 0) handle_ = datagram.substr(16, kMarker.size());
      return;
    }
    Check(parsed, "an answer is a LocalReply");
    if (reply.has_welcome()) {
      Check(!std::exchange(welcomed_, true), "one welcome");
      return;
    }
    Check(welcomed_, "answers come after the welcome");
    if (reply.has_session() || reply.has_session_end()) return SendOfSession(reply);
    Check(reply.has_answer(), "a welcome, an answer, or a session's");
    const v1::LocalAnswer& answer = reply.answer();
    Check((answer.code() == 0) == answer.has_result(), "a result, or an error");
    Check((answer.code() == 0) == answer.message().empty(), "an error has words");
    Check(answer.code() >= 0 && answer.code() <= 16, "a gRPC status code");
    if (const auto call = calls_.find(answer.id()); call != calls_.end() && call->second > 0) {
      --call->second;
    } else {
      Check(--unknown_ >= 0 && answer.code() != 0, "an answer is to a call, and to each call there is one");
    }
  }

 private:
  void SendOfSession(const v1::LocalReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Check(!session_ended_, "nothing comes after a session's end");
    if (reply.has_session_end()) {
      session_ended_ = true;
      const v1::LocalSessionEnd& end = reply.session_end();
      Check((end.code() == 0) == end.message().empty(), "an error has words");
      Check(end.code() >= 0 && end.code() <= 16, "a gRPC status code");
      return;
    }
    const bool opens = reply.session().has_opened();
    Check(opens != std::exchange(session_opened_, true), "a session is opened first, and once");
    if (opens) return;
    const v1::SessionStepResult& result = reply.session().result();
    Check((result.code() == 0) == result.message().empty(), "an error has words");
    Check(result.code() == 0 || reply.session().output().empty(), "an error has no output");
  }

  std::atomic<bool> paused_{false};
  absl::Mutex mutex_;
  bool session_opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool session_ended_ ABSL_GUARDED_BY(mutex_) = false;
  int asked_ ABSL_GUARDED_BY(mutex_) = 0;
  int answered_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string handle_ ABSL_GUARDED_BY(mutex_);
  bool welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::uint64_t, int> calls_ ABSL_GUARDED_BY(mutex_);  // not answered, by id
  int unknown_ ABSL_GUARDED_BY(mutex_) = 0;                     // datagrams that protobuf refused
};

struct World {
  World() { AddTestModel(registry); }

  SilentProtobuf silent;
  SharedMemory memory{SharedMemoryLimits{}};
  model::Registry registry{model::RegistryOptions{}};
  CallGate gate;
  AttentionEngine engine{SmallLimits(), registry, **kernel::ChooseKernel(""), 1, &memory};
  SessionTable table{SessionOptions()};
  LocalSessionService sessions{{engine, registry, table}, gate};
  LocalService service{engine, gate, /*enabled=*/true, &sessions};
  Closer closer, unmapper;
  SharedMemory::Owner owner = 0;
  int region = SealedMemory();
};

void Run(World& world, absl::string_view input) {
  const auto peer = std::make_shared<Peer>();
  {
    Connection connection(++world.owner, "user", &world.memory, world.closer, world.unmapper, peer,
                          world.service.Connect({}, peer));
    while (input.size() >= 3) {
      if (peer->paused()) {
        std::this_thread::yield();
        continue;
      }
      const auto byte = [&input](std::size_t i) { return static_cast<unsigned char>(input[i]); };
      std::vector<shm::UniqueFd> descriptors;
      for (int i = 0; i < (byte(0) & 3); ++i) descriptors.emplace_back(fcntl(world.region, F_DUPFD_CLOEXEC, 0));
      const std::size_t size = byte(1) + byte(2) * std::size_t{256};
      input.remove_prefix(3);
      const std::string datagram = peer->WithHandle(input.substr(0, size));
      input.remove_prefix(std::min(size, input.size()));
      peer->Ask(datagram);
      if (!connection.Take(datagram, std::move(descriptors)).ok()) break;
    }
  }
  while (world.gate.inside() > 0 || world.engine.inflight_bytes() > 0 || world.memory.mapped_bytes() > 0 ||
         world.closer.waiting() > 0) {
    std::this_thread::yield();  // a hang is found by the fuzzer's time limit
  }
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static attnd::server::World& world = *new attnd::server::World;
  attnd::server::Run(world, absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
