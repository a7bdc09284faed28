#include "server/shm/connection.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "errors/shown.h"
#include "memory/no_memory.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

bool IsFixed(absl::string_view datagram) {
  std::uint64_t magic = 0;
  if (datagram.size() < sizeof(magic)) return false;
  std::memcpy(&magic, datagram.data(), sizeof(magic));
  return magic == shm::kMagic;
}

std::string ReplyOf(const absl::StatusOr<shm::Handle>& result) {
  shm::Reply reply{};
  reply.magic = shm::kMagic;
  reply.version = shm::kVersion;
  reply.code = static_cast<std::int32_t>(result.status().code());
  if (result.ok()) reply.handle = *result;
  const absl::string_view message = errors::CutAtCharacter(result.status().message(), sizeof(reply.message) - 1);
  std::copy(message.begin(), message.end(), reply.message);
  return std::string(reinterpret_cast<const char*>(&reply), sizeof(reply));
}

}  // namespace

Connection::Connection(SharedMemory::Owner owner, std::string user, SharedMemory* memory, Closer& closer,
                       Closer& unmapper, std::shared_ptr<DatagramSink> sink, std::shared_ptr<LocalConnection> calls)
    : owner_(owner),
      user_(std::move(user)),
      memory_(memory),
      closer_(closer),
      unmapper_(unmapper),
      sink_(std::move(sink)),
      calls_(std::move(calls)) {}

Connection::~Connection() {
  calls_->Close();
  if (memory_ == nullptr) return;
  for (auto& [handle, entry] : memory_->Drop(owner_)) unmapper_.Release(std::move(entry.region));
}

absl::Status Connection::Take(absl::string_view datagram, std::vector<shm::UniqueFd> descriptors) {
  if (IsFixed(datagram)) return TakeFixed(datagram, std::move(descriptors));
  if (descriptors.empty()) return calls_->Take(datagram);
  for (shm::UniqueFd& fd : descriptors) closer_.Close(std::move(fd));
  return absl::InvalidArgumentError("a descriptor with a message that has no use for it");
}

absl::Status Connection::TakeFixed(absl::string_view datagram, std::vector<shm::UniqueFd> descriptors) {
  shm::Request request;
  absl::Status broken;
  if (datagram.size() != sizeof(request)) broken = absl::InvalidArgumentError("a fixed message of another length");
  if (descriptors.size() > 1) broken = absl::InvalidArgumentError("more than one descriptor");
  if (broken.ok()) {
    std::memcpy(&request, datagram.data(), sizeof(request));
    absl::StatusOr<shm::Handle> result = shm::Handle{};
    const absl::Status performed = memory::CatchNoMemory([&] {
      result = Perform(request, descriptors.empty() ? -1 : descriptors.front().get());
      return result.status();
    });
    if (!performed.ok()) result = performed;
    // The mapping no longer needs its descriptor. Only a memfd is closed at once: closing any other descriptor may take
    // long.
    if (result.ok() && request.operation == shm::Operation::kRegister) descriptors.clear();
    if (!descriptors.empty() && closer_.waiting() >= kMaxClosing) {
      broken = absl::ResourceExhaustedError("too many descriptors that take long to close");
    } else {
      sink_->Send(ReplyOf(result), nullptr);
    }
  }
  for (shm::UniqueFd& fd : descriptors) closer_.Close(std::move(fd));
  return broken;
}

absl::StatusOr<shm::Handle> Connection::Register(int memory, std::uint64_t size) {
  if (memory_ == nullptr) return absl::FailedPreconditionError("this server shares no memory (--noshared_memory)");
  absl::StatusOr<shm::Handle> handle = memory_->Register(owner_, user_, memory, size);
  if (handle.ok() || !absl::IsResourceExhausted(handle.status())) return handle;
  // Regions that were released earlier may still be mapped; once they are unmapped there may be room.
  unmapper_.Drain();
  return memory_->Register(owner_, user_, memory, size);
}

absl::StatusOr<shm::Handle> Connection::Release(const shm::Handle& handle) {
  if (memory_ == nullptr) return absl::NotFoundError("this server shares no memory (--noshared_memory)");
  absl::StatusOr<std::shared_ptr<const SharedRegion>> region = memory_->Release(owner_, handle);
  if (!region.ok()) return region.status();
  unmapper_.Release(*std::move(region));
  return shm::Handle{};
}

absl::StatusOr<shm::Handle> Connection::Perform(const shm::Request& request, int memory) {
  if (request.version != shm::kVersion) {
    return absl::UnimplementedError(absl::StrCat("version: expected ", shm::kVersion, ", got ", request.version));
  }
  switch (request.operation) {
    case shm::Operation::kRegister:
      return Register(memory, request.size);
    case shm::Operation::kRelease:
      return Release(request.handle);
  }
  return absl::UnimplementedError(absl::StrCat("operation: expected 1 (register) or 2 (release), got ",
                                               static_cast<std::uint32_t>(request.operation)));
}

}  // namespace attnd::server
