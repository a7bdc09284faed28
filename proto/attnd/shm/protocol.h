// How a client shares memory with the server: the fixed request and reply of the socket PATH.shm (SOCK_SEQPACKET),
// which the server opens beside a gRPC listener on unix:PATH. docs/shared-memory.md describes the protocol for clients
// in other languages; attnd/v1/local.proto has the messages of calls over the same socket.
#pragma once

#include <array>
#include <cstdint>

namespace attnd::shm {

// The socket's path is that of the gRPC socket followed by this, so that a client finds it wherever the latter is
// mounted.
inline constexpr char kSocketSuffix[] = ".shm";

// "attndshm", read as a little-endian number.
inline constexpr std::uint64_t kMagic = 0x6d6873646e747461;
inline constexpr std::uint32_t kVersion = 1;

// Names a region in SharedTensor.region. Random, so that only the client that registered the region knows it.
using Handle = std::array<unsigned char, 16>;

enum class Operation : std::uint32_t {
  kRegister = 1,  // the message carries one descriptor (SCM_RIGHTS)
  kRelease = 2,
};

// Both structures are sent as they are laid out in memory on a 64-bit little-endian machine: client and server run on
// the same one.
struct Request {
  std::uint64_t magic;
  std::uint32_t version;
  Operation operation;
  std::uint64_t size;  // bytes of the region; kRegister
  Handle handle;       // kRelease
};
static_assert(sizeof(Request) == 40);

struct Reply {
  std::uint64_t magic;
  std::uint32_t version;
  std::int32_t code;  // a gRPC status code; 0 is OK
  Handle handle;      // kRegister
  char message[224];  // what went wrong, zero-terminated
};
static_assert(sizeof(Reply) == 256);

}  // namespace attnd::shm
