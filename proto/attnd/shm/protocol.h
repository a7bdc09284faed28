// How a client hands memory to the server: the one message pair of the socket PATH.shm (SOCK_SEQPACKET), which the
// server opens beside a gRPC listener on unix:PATH. docs/shared-memory.md describes it for clients in other languages.
#pragma once

#include <array>
#include <cstdint>

namespace attnd::shm {

// The socket's path is that of the gRPC socket with this behind it, so that it is found wherever that one is mounted.
inline constexpr char kSocketSuffix[] = ".shm";

// "attndshm", read as a little-endian number.
inline constexpr std::uint64_t kMagic = 0x6d6873646e747461;
inline constexpr std::uint32_t kVersion = 1;

// What names a region in SharedTensor.region. Random, so that only who was given it can know it.
using Handle = std::array<unsigned char, 16>;

enum class Operation : std::uint32_t {
  kRegister = 1,  // one descriptor comes with the message (SCM_RIGHTS)
  kRelease = 2,
};

// Both structures travel as they stand in the memory of a 64-bit little-endian machine: client and server share one.
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
  char message[224];  // what went wrong, ended by a zero byte
};
static_assert(sizeof(Reply) == 256);

}  // namespace attnd::shm
