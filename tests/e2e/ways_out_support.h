// A server whose kernel can be held, and its callers by every door that computes.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "attention/held_kernel.h"
#include "attnd/v1/attention.pb.h"
#include "e2e_support.h"
#include "temp_folder.h"

namespace attnd::e2e {

// While it lives, the best kernel of this process is one that a test can hold.
class KernelInFront {
 public:
  KernelInFront();
  ~KernelInFront();
  KernelInFront(const KernelInFront&) = delete;
  KernelInFront& operator=(const KernelInFront&) = delete;

  server::HeldKernel& held() { return held_; }

 private:
  server::HeldKernel held_;
};

// A server with one computing thread, which receives one message at a time, so that a place that is not given back is
// missed by the next call. Its kernel is released before it ends.
class HeldServer {
 public:
  explicit HeldServer(absl::Duration drain = absl::Seconds(60));
  ~HeldServer() { kernel().Release(); }

  TestServer& test() { return *server_; }
  server::Server& server() { return server_->server(); }
  server::HeldKernel& kernel() { return front_.held(); }
  // Holds the computing thread alone.
  void Hold() { kernel().HoldTheLastThread(); }
  const std::string& address() const { return server_->address(); }
  std::string local_path() const { return folder_.path() + "/s.shm"; }

  // Calls that wait to be received or to be computed.
  std::int64_t waiting();
  std::int64_t open_sessions();

  // What calls hold now.
  struct Held {
    std::int64_t calls = 0;
    std::int64_t bytes = 0;
    std::int64_t waiting = 0;
    friend bool operator==(const Held&, const Held&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Held& held) {
      return out << held.calls << " calls, " << held.bytes << " bytes, " << held.waiting << " waiting";
    }
  };
  Held held();
  // Expects that calls soon hold this and no more.
  void ExpectHeld(const Held& expected);
  // Expects that soon nothing is left of any call or session.
  void ExpectIdle();

 private:
  v1::GetServerInfoResponse Info();

  const test::TempFolder folder_;
  KernelInFront front_;
  std::unique_ptr<TestServer> server_;
};

enum class Door : std::uint8_t { kUnary, kStream, kSession, kLocalCall, kLocalSession };
inline constexpr Door kDoors[] = {Door::kUnary, Door::kStream, Door::kSession, Door::kLocalCall, Door::kLocalSession};
const char* NameOf(Door door);
inline bool IsLocal(Door door) { return door >= Door::kLocalCall; }
inline bool IsSession(Door door) { return door == Door::kSession || door == Door::kLocalSession; }

// What a caller sends.
enum class Message : std::uint8_t {
  kSmall,        // computed on the thread that received it
  kLarge,        // computed by the held kernel, in many steps
  kRefused,      // by validation
  kUndecodable,  // no message of the protocol
  kLargeResult,  // takes no time, and its answer finds no room on the way unless it is read
};

// One connection, and a call, a stream or a session on it. All pieces and local calls have one id, so that an id which
// is not free after its answer is missed by the next. Waits are bounded, and a missing answer is reported as a failure.
class Caller {
 public:
  // `timeout`: of the call, the stream, or each step.
  static std::unique_ptr<Caller> Create(HeldServer& server, Door door,
                                        std::optional<std::chrono::milliseconds> timeout = std::nullopt);
  virtual ~Caller() = default;

  // A unary call takes one message.
  virtual void Send(Message message) = 0;
  // The code of the next answer, or of the call's end if that comes first.
  virtual grpc::StatusCode Answer() = 0;
  // The call, the stream, or what a session computes.
  virtual void Cancel() = 0;
  // The connection is lost.
  virtual void Break() = 0;
  // Ends in good order, if it has not ended; the code with which it did.
  virtual grpc::StatusCode Close() = 0;
  // Sends messages with large results until the transport can no longer hold all answers; returns how many it sent.
  virtual int Flood() = 0;

  // Whether more may be sent after what is answered with an error.
  virtual bool outlives_an_error() const = 0;
  // The same for bytes that are no message.
  virtual bool outlives_noise() const { return false; }
};

// Bytes of a result of a flood.
std::int64_t FloodedBytes(Door door);

}  // namespace attnd::e2e
